# SPDX-License-Identifier: Apache-2.0
"""Run folders with checkpoints of tiny nets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx

from heads import build_head
from nets import build_net
from training.checkpoint import save_checkpoint
from training.step import Model, collect_parameters

TINY = {"name": "mobilefacenet", "width": 0.125, "embedding_size": 8}


def save_run(
    folder: Path,
    *,
    net: Mapping[str, Any] = TINY,
    image_size: tuple[int, int] = (112, 112),
    steps: Sequence[int] = (7,),
    verification: Mapping[str, Any] | None = None,
) -> Path:
    """Save checkpoints of a new net, and a summary with the results of verification sets.

    Random running statistics make the embeddings of different images differ.
    """
    built = build_net(image_size=image_size, **net)
    head = build_head("softmax", 2, net["embedding_size"])
    for block in (built, head):
        block.initialize(mx.init.Xavier())
    for name, parameter in built._collect_params_with_prefix().items():
        if name.endswith(("gamma", "running_var")):
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, parameter.shape))
        elif name.endswith(("beta", "running_mean")):
            parameter.set_data(mx.nd.random.normal(0, 0.1, parameter.shape))
    parameters = collect_parameters(built, head)
    trainer = mx.gluon.Trainer(parameters, "sgd", kvstore=None)
    model = Model(built, head, trainer, parameters)
    for step in steps:
        state = {
            "progress": {"step": step},
            "meta": {"net": dict(net), "image_size": list(image_size)},
        }
        save_checkpoint(folder / "checkpoints", step, model, state=state, keep=2)
    if verification is not None:
        summary = {"status": "finished", "steps": steps[-1], "verification": verification}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder

# SPDX-License-Identifier: Apache-2.0
"""Seeds of model files: tiny networks, saved in each format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx

from heads import build_head
from nets import build_net
from training.checkpoint import save_checkpoint
from training.run_folder import write_config
from training.step import Model, build_optimizer, collect_parameters, train_step

NET: dict[str, Any] = {"name": "mobilefacenet", "width": 0.125, "embedding_size": 8}
IMAGE_SIZE = (24, 24)
CONFIG = {"net": NET, "optim": {"lr": 0.1}, "run": {"seed": 1, "name": "seed"}}


def _initialised(block: Any) -> Any:
    block.initialize(mx.init.Xavier())
    return block


def save_checkpoint_seed(run: Path) -> tuple[Model, dict[str, Any]]:
    """Save a run with one checkpoint; return the model and the configuration of the run."""
    net = _initialised(build_net(image_size=IMAGE_SIZE, **NET))
    head = _initialised(build_head("cosface", 3, NET["embedding_size"], scale=8.0))
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(parameters, "sgd", 0.1, 0.9, 1e-3)
    trainer = mx.gluon.Trainer(parameters, optimizer, kvstore=None)
    model = Model(net, head, trainer, parameters)
    image, label = mx.nd.random.normal(shape=(4, 3, *IMAGE_SIZE)), mx.nd.array([0, 1, 2, 0])
    train_step(net, head, trainer, image, label, mx.nd.ones((1,)))
    counts = {"step": 5, "images": 20, "epoch": 1, "consumed": 8}
    meta = {"net": NET, "image_size": list(IMAGE_SIZE), "mean": 127.5, "std": 128.0}
    state = {"progress": counts, "epoch_images": 12, "end_images": 60, "meta": meta}
    save_checkpoint(run / "checkpoints", 5, model, state=state, keep=1)
    write_config(run, CONFIG, {"ranks": 1})
    return model, CONFIG


def save_model_seeds(folder: Path) -> None:
    """Save a network in each format that needs no other framework to be written.

    The files of one model begin with the same word, up to the first hyphen.
    """
    folder.mkdir()
    net = _initialised(build_net(**NET))
    net.hybridize()
    net(mx.nd.zeros((1, 3, 112, 112)))
    net.export(str(folder / "symbol"))

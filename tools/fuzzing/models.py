# SPDX-License-Identifier: Apache-2.0
"""Save tiny networks in each model format, as seed files for the fuzzer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import safetensors.numpy

from heads import build_head
from interchange.arcface_torch import torch_name
from interchange.export import export_model
from interchange.model import StoredModel
from nets import build_net
from tools.fuzzing.torch_files import save_legacy, save_zip, tensor
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
    """Save a network in each format: MXNet symbol, ONNX, .safetensors, and .pth in two formats.

    The names of the files of one model are equal up to the first hyphen.
    """
    folder.mkdir()
    net = _initialised(build_net(**NET))
    net.hybridize()
    net(mx.nd.zeros((1, 3, 112, 112)))
    net.export(str(folder / "symbol"))
    export_model(_stored_model(NET), folder / "onnx-net.onnx", format="onnx")
    (folder / "onnx-net.onnx.md").unlink()
    # In arcface_torch, MobileFaceNet has width 1, so the reader would refuse the width of NET.
    model = _stored_model({**NET, "width": 1.0})
    arrays = {torch_name(NET["name"], own): values for own, values in model.parameters.items()}
    safetensors.numpy.save_file(
        arrays, folder / "safetensors-net.safetensors", {"threshold": "0.3"}
    )
    tensors = {f"module.{each}": tensor(values) for each, values in arrays.items()}
    content = {"state_dict": tensors, "epoch": 3}
    save_zip(folder / "zip-net.pth", content)
    save_legacy(folder / "legacy-net.pth", content)


def _stored_model(net: dict[str, Any]) -> StoredModel:
    """Return a network with random weights for images of IMAGE_SIZE."""
    random = np.random.default_rng(3)
    layers = build_net(image_size=IMAGE_SIZE, **net)._collect_params_with_prefix()
    values = {}
    for name, parameter in layers.items():
        low, high = (0.5, 1.5) if name.endswith(("gamma", "var", "alpha")) else (-0.3, 0.3)
        values[name] = random.uniform(low, high, parameter.shape).astype(np.float32)
    return StoredModel("seed", "checkpoint", net, IMAGE_SIZE, values)

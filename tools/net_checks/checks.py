# SPDX-License-Identifier: Apache-2.0
"""Checks of one network: parameter counts, training steps, exported files and learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

import ops
from interchange.comparison import MAX_DIFFERENCE, model_function, random_pixels
from interchange.export import export_model
from interchange.model import StoredModel
from interchange.open_model import open_model
from interchange.write_checkpoint import write_checkpoint
from nets import NETS, build_net
from nets.layer_table import RUNNING, measure
from ranges import settings
from tools.net_checks.published import PUBLISHED

MAX_COUNT_DIFFERENCE = 0.01
MAX_STEP_DIFFERENCE = 1e-2
"""Largest permitted difference between two computations of the same training step.

The difference of the embeddings is relative to the largest element, and the difference of the norm
of the gradient is relative to this norm.
"""
STEP_SIDES_PIXELS = (64, 112)
FILE_SIDES_PIXELS = (32, 48, 64, 112)
LEARNING_SIDES_PIXELS = (16, 40, 48, 64, 112)
CALIBRATION_STEPS = 30
SMALL_WIDTH = 0.25
SMALL_DEPTH = 2
LEARNING_IMAGES, IDENTITIES, LEARNING_STEPS = 8, 4, 60
LEARNING_RATE = 2e-3
MAX_LAST_LOSS = 0.1


class CheckError(ValueError):
    """A network fails a check; the message says what differs."""


def require(holds: bool, message: str) -> None:
    """Raise CheckError if a condition does not hold."""
    if not holds:
        raise CheckError(message)


def check_counts(name: str, folder: Path) -> str:
    """Compare the numbers of parameters and multiply-accumulates with the published ones."""
    published, net = PUBLISHED[name], build_net(name)
    size = measure(net)
    if published.classifier:
        parameters = count_learned(net.trunk) + published.classifier
        macs = measure(net.trunk).macs
    else:
        parameters = count_learned(net, shared_slopes="per layer" in published.difference)
        macs = size.macs
    differences = [parameters / published.parameters - 1]
    if published.macs is not None:
        differences.append(macs / published.macs - 1)
    worst = max(map(abs, differences))
    require(worst <= MAX_COUNT_DIFFERENCE, f"counts differ by {worst:.2%} from {published.source}")
    compared = f"{worst:.2%}" if published.macs is not None else f"{worst:.2%} (parameters)"
    return f"{size.parameters / 1e6:.3f} M, {size.macs / 1e9:.3f} G, {compared}"


def count_learned(net: gluon.Block, shared_slopes: bool = False) -> int:
    """Return the number of learned parameters.

    If ``shared_slopes`` is True, the slopes of a PReLU count as one parameter, as in a reference
    with one slope per layer.
    """
    total = 0
    for name, parameter in net._collect_params_with_prefix().items():
        if name.endswith(RUNNING):
            continue
        total += 1 if shared_slopes and name.endswith("alpha") else math.prod(parameter.shape)
    return total


def check_steps(name: str, folder: Path) -> str:
    """Compare training steps: hybridized with imperative, and native with plain operators."""
    side = smallest_side(name, STEP_SIDES_PIXELS, {})
    x = mx.nd.array(np.random.default_rng(1).uniform(-1, 1, (4, 3, side, side)))
    notice = ops.use("plain")
    results = {"imperative": training_step(name, x, hybridize=False)}
    results["hybridized"] = training_step(name, x, hybridize=True)
    notice = ops.use("native")
    results["native"] = training_step(name, x, hybridize=True)
    ops.use("plain")
    expected = results["imperative"]
    require(all(np.isfinite(v).all() for v in expected.values()), "a value is not finite")
    idle = [key for key, value in expected.items() if not np.abs(value).max() > 0]
    require(not idle, f"no gradient of {idle[:3]}")
    worst = {}
    for kind in ("hybridized", "native"):
        worst[kind] = max(
            float(np.abs(results[kind][key] - value).max() / np.abs(value).max())
            for key, value in expected.items()
            if key in ("embedding", "norm of the gradient")
        )
        require(
            worst[kind] <= MAX_STEP_DIFFERENCE,
            f"a {kind} step differs by {worst[kind]:.1e} ({notice})",
        )
    differences = ", ".join(f"{kind} {value:.0e}" for kind, value in worst.items())
    return f"{differences} ({side} px)"


def training_step(name: str, x: mx.nd.NDArray, *, hybridize: bool) -> dict[str, np.ndarray]:
    """Return the embeddings and the gradients of one training step from fixed seeds."""
    mx.random.seed(1)
    net = build_net(name, x.shape[2:])
    net.initialize()
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    mx.nd.waitall()
    mx.random.seed(2)
    with autograd.record():
        y = net(x)
        weights = mx.nd.array(np.random.default_rng(2).normal(size=y.shape))
        loss = (y * weights).sum()
    loss.backward()
    found = {
        key: parameter.grad().asnumpy()
        for key, parameter in net._collect_params_with_prefix().items()
        if parameter.grad_req != "null"
    }
    norm = np.sqrt(sum(float(np.square(gradient, dtype=np.float64).sum())
                       for gradient in found.values()))  # fmt: skip
    return {"embedding": y.asnumpy(), "norm of the gradient": np.array([norm]), **found}


def check_files(name: str, folder: Path) -> str:
    """Write a checkpoint, a symbol and an ONNX file, read them back, and compare embeddings."""
    side = smallest_side(name, FILE_SIDES_PIXELS, {})
    net = build_net(name, (side, side))
    mx.random.seed(3)
    net.initialize()
    calibrate(net, (side, side))
    defaults = {key: each.default for key, each in settings(NETS[name]).items()}
    model = StoredModel(
        source=name,
        kind="checkpoint",
        net={"name": name, **defaults},
        image_size=(side, side),
        parameters={
            key: parameter.data().asnumpy()
            for key, parameter in net._collect_params_with_prefix().items()
        },
    )
    pixels = random_pixels((side, side), 8)
    expected = normalised(model_function(model)(pixels))
    checkpoint = folder / f"{name}-checkpoint"
    write_checkpoint(model, checkpoint)
    same = normalised(model_function(open_model(checkpoint))(pixels))
    require(np.array_equal(same, expected), "the checkpoint gives other embeddings")
    notes = []
    for form, path in (("symbol", folder / f"{name}-symbol"), ("onnx", folder / f"{name}.onnx")):
        export_model(model, path, format=form)
        found = open_model(path)
        difference = float(np.abs(normalised(model_function(found)(pixels)) - expected).max())
        require(difference <= MAX_DIFFERENCE, f"{form} gives a difference of {difference:.1e}")
        notes.append(f"{form} {difference:.0e} as {found.net['name']}")
    return f"{', '.join(notes)} ({side} px)"


def calibrate(net: gluon.HybridBlock, image_size: tuple[int, int]) -> None:
    """Set the statistics of the batch normalisations to those of random images.

    With the initial statistics, the values in a deep network would grow from layer to layer, and
    rounding errors would grow with them.
    """
    random = np.random.default_rng(4)
    net.hybridize()
    for _ in range(CALIBRATION_STEPS):
        with autograd.record():
            y = net(mx.nd.array(random.uniform(-1, 1, (8, 3, *image_size))))
        y.backward()  # MXNet updates the statistics in the backward pass
        mx.nd.waitall()


def check_learning(name: str, folder: Path) -> str:
    """Train a small network on 8 images of 4 identities; require a loss near zero."""
    options = small_options(name)
    side = smallest_side(name, LEARNING_SIDES_PIXELS, options)
    losses = learn(name, options, (side, side))
    require(losses[-1] <= MAX_LAST_LOSS, f"the loss ends at {losses[-1]:.3f}")
    stated = ", ".join(f"{key} {value}" for key, value in options.items()) or "whole"
    return f"{losses[0]:.2f} to {losses[-1]:.3f} ({stated}, {side} px)"


def learn(name: str, options: Mapping[str, Any], image_size: tuple[int, int]) -> list[float]:
    """Train on random images of a few identities; return the loss of each step."""
    mx.random.seed(5)
    net, classifier = build_net(name, image_size, **options), gluon.nn.Dense(IDENTITIES)
    for block in (net, classifier):
        block.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    x = mx.nd.array(np.random.default_rng(5).uniform(-1, 1, (LEARNING_IMAGES, 3, *image_size)))
    label = mx.nd.array(np.arange(LEARNING_IMAGES) % IDENTITIES)
    entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    classifier(net(x))
    parameters = {**net._collect_params_with_prefix(), "classifier": classifier.weight}
    trainer = gluon.Trainer(parameters, "adam", {"learning_rate": LEARNING_RATE})
    losses = []
    for _ in range(LEARNING_STEPS):
        with autograd.record():
            loss = entropy(classifier(net(x)), label)
        loss.backward()
        trainer.step(LEARNING_IMAGES)
        losses.append(max(0.0, float(loss.mean().asscalar())))  # rounding gives -1e-8
    return losses


def small_options(name: str) -> dict[str, Any]:
    """Return settings that make a network small, as far as the network has such settings."""
    known = settings(NETS[name])
    options = {"width": SMALL_WIDTH} if "width" in known else {}
    return {**options, "depth": SMALL_DEPTH} if "depth" in known else options


def smallest_side(name: str, sides: tuple[int, ...], options: Mapping[str, Any]) -> int:
    """Return the first of ``sides``, in pixels, that a network supports.

    If the network supports none of the earlier sides, return the last side without trying it.
    """
    for side in sides[:-1]:
        try:
            build_net(name, (side, side), **options)
        except ValueError:
            continue
        return side
    return sides[-1]


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings (B, E) with L2 norm 1."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


CHECKS: dict[str, Callable[[str, Path], str]] = {
    "counts": check_counts,
    "steps": check_steps,
    "files": check_files,
    "learning": check_learning,
}
"""Mapping from the name of a check to its function.

The arguments of a function are the name of a network, and a folder for files.
"""

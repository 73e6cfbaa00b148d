# SPDX-License-Identifier: Apache-2.0
"""Time heads, networks and operators of our code, Gluon and GluonFR, for several benchmarks.

As in run_train.py, `share_cores` sets the number of threads, and the blocks of our code are
hybridized with static memory.  A training step of our networks also uses the optimizer and the step
of training/.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.harness import inputs
from benchmarks.harness.worker import Work, serve
from benchmarks.steps import mxnet_blocks
from launch.ranks.threads import share_cores


def build(what: str, **settings: Any) -> Work:
    """Return the `Work` of one kind of step: "head", "loss", "train" or "operator"."""
    steps: dict[str, Callable[..., Work]]
    steps = {"head": head_step, "loss": loss_step, "train": train_step, "operator": operator_step}
    return steps[what](**settings)


def head_step(*, kind: str, num_classes: int, embedding_size: int, batch: int) -> Work:
    """Return the `Work` of an ArcFace head alone: forward, backward and update.

    Parameters
    ----------
    kind
        "ours": our head.  "ours fused update": our head, which stores no gradient of the class
        centres.  "gluonfr": the blocks of GluonFR's training script, NormDense hybridized and
        ArcLoss not.  "gluonfr hybridized": the same blocks, both hybridized with static memory.
    num_classes, embedding_size, batch
        Number of classes, embedding size and embeddings per batch.
    """
    import mxnet as mx
    from mxnet import autograd

    embedding = mx.nd.array(inputs.embeddings(batch, embedding_size))
    embedding.attach_grad()
    label = mx.nd.array(inputs.labels(batch, num_classes))
    fused = kind == "ours fused update"
    if kind.startswith("ours"):
        head = mxnet_blocks.our_head(num_classes, embedding_size, fused)
        fraction = mx.nd.ones((1,))

        def loss_of() -> Any:
            return head(embedding, label, fraction)[0]
    else:
        dense, arc = mxnet_blocks.gluonfr_head(num_classes, embedding_size)
        static = {"static_alloc": True, "static_shape": True} if "hybridized" in kind else {}
        dense.hybridize(**static)
        if static:
            arc.hybridize(**static)
        head = dense

        def loss_of() -> Any:
            return arc(dense(embedding), label)

    weight = head.weight
    for rows, values in inputs.centres(num_classes, embedding_size):
        weight.data()[rows] = mx.nd.array(values)
    if fused:
        rate = mx.nd.full((1,), inputs.LR)

        def update() -> None:
            head.update(rate)
    else:
        trainer = sgd_trainer(head.collect_params())

        def update() -> None:
            trainer.step(batch)

    def step(mark: Callable[[], None]) -> float:
        with autograd.record():
            loss = loss_of()
        loss.backward()
        mx.nd.waitall()
        mark()
        update()
        mx.nd.waitall()
        return float(loss.asnumpy().mean())

    # Weights, momentum and, without the fused update, gradients are arrays of equal size.
    copies = 2 if fused else 3
    size = num_classes * embedding_size
    return Work(step, 4 * size * copies, size, versions())


def loss_step(
    *, name: str, options: dict[str, Any], num_classes: int, embedding_size: int, batch: int
) -> Work:
    """Return the `Work` of one of our heads alone: forward, backward and update by SGD.

    Parameters
    ----------
    name, options
        Name of the head in heads.HEADS, and its keyword arguments.
    num_classes, embedding_size, batch
        Number of classes, embedding size, and embeddings per batch (four of each class).
    """
    import mxnet as mx
    from mxnet import autograd

    from heads import build_head

    mxnet_blocks.use_operators("ours")
    embedding = mx.nd.array(inputs.embeddings(batch, embedding_size))
    embedding.attach_grad()
    label = mx.nd.array(inputs.labels(batch, num_classes)[: batch // 4].repeat(4))
    fraction = mx.nd.ones((1,))
    mx.random.seed(0)
    head = build_head(name, num_classes, embedding_size, **options)
    head.initialize()
    head.hybridize(static_alloc=True, static_shape=True)
    parameters = list(head.collect_params().values())
    trainer = sgd_trainer(head.collect_params()) if parameters else None

    def step(mark: Callable[[], None]) -> float:
        with autograd.record():
            loss, _ = head(embedding, label, fraction)
        loss.backward()
        mx.nd.waitall()
        mark()
        if trainer:
            trainer.step(batch)
            mx.nd.waitall()
        return float(loss.asnumpy().mean())

    return Work(step, *sizes(parameters), versions())


def train_step(
    *, kind: str, net: str, options: dict[str, Any], batch: int, num_classes: int, image_size: int
) -> Work:
    """Return the `Work` of a training step of a network with an ArcFace head.

    Parameters
    ----------
    kind
        "ours": our network with our compiled operators.  "ours plain": our network with Gluon's
        operators.  "gluonfr": GluonFR's own network, whose PReLU has one slope per layer.
    net, options
        Name of the network in nets.NETS, and its keyword arguments.
    batch, num_classes, image_size
        Images per step, classes of the head, side of the images in pixels.
    """
    import mxnet as mx
    from mxnet import autograd

    mx.random.seed(0)  # The initial weights of "ours" and "ours plain" must be equal.
    image = mx.nd.array(inputs.images(batch, image_size))
    label = mx.nd.array(inputs.labels(batch, num_classes))
    if kind == "gluonfr":
        network, arc = mxnet_blocks.gluonfr_net(net, num_classes)
        network(image)  # The first batch completes the deferred initialisation.
        parameters = list(network.collect_params().values())
        trainer = sgd_trainer(network.collect_params())

        def step(mark: Callable[[], None]) -> float:
            with autograd.record():
                loss = arc(network(image)[1], label)
            loss.backward()
            trainer.step(batch)
            mx.nd.waitall()
            return float(loss.asnumpy().mean())
    else:
        from training import step as training

        mxnet_blocks.use_operators(kind)
        network, head, trainer = our_blocks(net, options, num_classes, (image_size, image_size))
        parameters = trainer._params
        fraction = mx.nd.ones((1,))

        def step(mark: Callable[[], None]) -> float:
            loss, _ = training.train_step(network, head, trainer, image, label, fraction)
            mx.nd.waitall()
            return float(loss.asnumpy()[0])

    state_bytes, count = sizes(parameters)
    return Work(step, state_bytes, count, versions(), profile=lambda steps: _profile(step, steps))


def our_blocks(
    net: str, options: dict[str, Any], num_classes: int, image_size: tuple[int, int]
) -> tuple[Any, Any, Any]:
    """Build a network, an ArcFace head and the trainer of both, as in a training run."""
    from mxnet import gluon

    from heads import build_head
    from nets import build_net
    from training import step as training

    network = build_net(net, image_size, **options)
    head = build_head("arcface", num_classes, options["embedding_size"])
    for block in (network, head):
        block.initialize()
        block.hybridize(static_alloc=True, static_shape=True)
    named = training.collect_parameters(network, head)
    optimizer = training.build_optimizer(
        named, "sgd", inputs.LR, inputs.MOMENTUM, inputs.WEIGHT_DECAY
    )
    return network, head, gluon.Trainer(list(named.values()), optimizer, kvstore=None)


def sizes(parameters: Any) -> tuple[int, int]:
    """Return the bytes of weights, gradients and momentum, and the number of trained values."""
    state = sum(4 * _size(p) * (1 if p.grad_req == "null" else 3) for p in parameters)
    return state, sum(_size(p) for p in parameters if "running_" not in p.name)


def operator_step(kind: str, operator: str, shape: list[int]) -> Work:
    """Return the `Work` of one operator: forward and backward.

    Parameters
    ----------
    kind
        "ours" or "gluon".
    operator
        "prelu", or "batch_norm_prelu" for batch normalisation followed by PReLU.
    shape
        Shape (B, C, H, W) of the feature map.
    """
    import mxnet as mx
    from mxnet import autograd

    values, gradient = (mx.nd.array(a) for a in inputs.features(tuple(shape)))
    values.attach_grad()
    block = mxnet_blocks.operator_block(kind, operator, shape[1])
    block.initialize()
    block.hybridize(static_alloc=True, static_shape=True)
    slope = next(p for p in block.collect_params().values() if p.name.endswith("alpha"))

    def step(mark: Callable[[], None]) -> float:
        with autograd.record():
            out = block(values)
        out.backward(gradient)
        mx.nd.waitall()
        return float(slope.grad().abs().sum().asscalar())

    # Three float32 arrays are in memory: the input, its gradient and the output gradient.
    return Work(step, 3 * 4 * values.size, shape[1], versions())


def warm() -> None:
    """Load MXNet and the operators, and start their threads with a small training step."""
    share_cores()
    import mxnet as mx

    from heads import build_head

    mxnet_blocks.use_operators("ours")
    head = build_head("arcface", 10, 16)  # A head this small does not raise the peak memory.
    head.initialize()
    head.hybridize(static_alloc=True, static_shape=True)
    trainer = sgd_trainer(head.collect_params())
    with mx.autograd.record():
        loss, _ = head(mx.nd.random.normal(shape=(8, 16)), mx.nd.zeros((8,)))
    loss.backward()
    trainer.step(8)
    matrix = mx.nd.ones((512, 512))
    mx.nd.dot(matrix, matrix).wait_to_read()
    mx.nd.waitall()


def sgd_trainer(parameters: Any) -> Any:
    """Return a trainer of one rank with the SGD settings of `inputs`."""
    from mxnet import gluon

    settings = {"learning_rate": inputs.LR, "momentum": inputs.MOMENTUM, "wd": inputs.WEIGHT_DECAY}
    return gluon.Trainer(parameters, "sgd", settings, kvstore=None)


def _size(parameter: Any) -> int:
    return parameter.data().size


def versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a step."""
    import mxnet as mx
    import numpy as np

    return {"mxnet": mx.__version__, "numpy": np.__version__}


def _profile(step: Callable[[Callable[[], None]], float], steps: int) -> dict[str, float]:
    """Run steps under MXNet's profiler; return the milliseconds per step of each operator."""
    from mxnet import profiler

    wanted = {"profile_imperative": True, "profile_symbolic": True, "aggregate_stats": True}
    # The profiler also writes a trace file, by default into the working directory.  os.devnull is
    # not a safe name: the profiler first removes the file of that name, so root would lose
    # /dev/null.
    with tempfile.TemporaryDirectory() as folder:
        profiler.set_config(**wanted, filename=os.path.join(folder, "trace.json"))
        profiler.set_state("run")
        for _ in range(steps):
            step(lambda: None)
        profiler.set_state("stop")
        found = json.loads(profiler.dumps(format="json"))["Time"].get("operator", {})
    return {name: values["Total"] / steps for name, values in found.items()}


if __name__ == "__main__":
    serve(build, warm)

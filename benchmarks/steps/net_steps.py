# SPDX-License-Identifier: Apache-2.0
"""Run training steps of our networks and of gluoncv2's trunks, for benchmarks/net_step.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.harness import inputs
from benchmarks.harness.worker import Work, serve
from benchmarks.steps import mxnet_blocks, mxnet_steps
from launch.ranks.threads import share_cores

SIDE_PIXELS = 112


def build(kind: str, net: str, batch: int) -> Work:
    """Return the `Work` of one training step.

    Parameters
    ----------
    kind
        "ours", or "gluoncv2" for the trunk of gluoncv2 with the embedding layers of our network.
    net
        Name of the network in nets.NETS.
    batch
        Images per step.
    """
    import mxnet as mx
    from mxnet import autograd, gluon

    from nets import build_net

    mxnet_blocks.use_operators("ours")
    mx.random.seed(0)
    network = build_net(net)
    if kind == "gluoncv2":
        network = with_stock_trunk(net, network)
    network.initialize()
    network.hybridize(static_alloc=True, static_shape=True)
    parameters = network.collect_params()
    settings = {"learning_rate": inputs.LR, "momentum": inputs.MOMENTUM, "wd": inputs.WEIGHT_DECAY}
    trainer = gluon.Trainer(parameters, "sgd", settings, kvstore=None)
    image = mx.nd.array(inputs.images(batch, SIDE_PIXELS))
    # Infer the shape of the embeddings from the symbol.  A call of the network outside of training
    # would allocate the memory of a second graph.
    (shape,) = network(mx.sym.var("data")).infer_shape(data=image.shape)[1]
    weight = mx.nd.random.normal(shape=shape)

    def step(mark: Callable[[], None]) -> float:
        with autograd.record():
            loss = (network(image) * weight).sum(axis=1)
        loss.backward()
        mx.nd.waitall()
        mark()
        trainer.step(batch)
        mx.nd.waitall()
        return float(loss.asnumpy().mean())

    state_bytes, count = mxnet_steps.sizes(list(parameters.values()))
    versions = {"mxnet": mx.__version__, "gluoncv2": "0.0.64"}
    return Work(step, state_bytes, count, versions)


def with_stock_trunk(net: str, network: Any) -> Any:
    """Return gluoncv2's trunk followed by our embedding layers.

    The first convolution of the trunk gets a stride of 1.
    """
    from mxnet.gluon import nn

    from benchmarks.steps.stock_trunks import stock_trunk
    from nets.trunk import blocks_of

    trunk = stock_trunk(net)
    first = next(block for block in blocks_of(trunk) if isinstance(block, nn.Conv2D))
    first._kwargs["stride"] = (1, 1)
    whole = nn.HybridSequential()
    whole.add(trunk, network.embedding)
    return whole


def warm() -> None:
    """Set the number of threads, load MXNet, and start the threads."""
    share_cores()
    import mxnet as mx

    matrix = mx.nd.ones((512, 512))
    mx.nd.dot(matrix, matrix).wait_to_read()


if __name__ == "__main__":
    serve(build, warm)

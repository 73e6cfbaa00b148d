# SPDX-License-Identifier: Apache-2.0
"""Nets support every image size that they can halve four times, and refuse others."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from nets import ALIASES, NETS, build_net, check_image_size
from nets.image_size import MIN_SIDE_PIXELS, feature_size
from nets.iresnet import IResNet
from tests.nets.steps import images, train_step

SIZES = [(112, 96), (64, 64), (32, 32), (128, 128), (113, 97), (97, 113), (9, 9), (9, 40), (16, 15)]
SMALL = {
    "mobilefacenet": lambda size: build_net("mobilefacenet", size, width=0.125, embedding_size=8),
    "iresnet": lambda size: IResNet((1, 1, 1, 1), 8, channels=(8, 8, 8, 16), image_size=size),
}

LIMITS = {
    "densenet": (15, "the network halves the image size 4 times"),
    "inception": (39, "its convolutions have no padding"),
    "vit": (9, "a patch has 9 pixels per side"),
}
"""Smallest side in pixels and its reason, by the start of the names of a family."""


def shapes(net):
    return {name: p.shape for name, p in net._collect_params_with_prefix().items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)
def test_every_size_trains_and_infers(build, size):
    net = build(size)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    x = images(2, size=size)
    y, gradients = train_step(net, x)
    assert y.shape == (2, 8) and np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert net(x).shape == (2, 8) and np.isfinite(net(x).asnumpy()).all()


@pytest.mark.parametrize(
    "name", ["mobilefacenet", "iresnet18", "mnasnet", "vargfacenet", "seresnet18", "attention56"]
)
def test_only_the_last_layer_depends_on_the_size(name):
    size = (113, 96)
    usual, other = (shapes(build_net(name, s)) for s in ((112, 112), size))
    height, width = feature_size(size)
    last = {
        "mobilefacenet": {"embedding.pool.conv.weight": (512, 1, height, width)},
        "mnasnet": {"embedding.pool.conv.weight": (1024, 1, height, width)},
        "vargfacenet": {"pool.conv.weight": (1024, 8, height, width)},
        "iresnet18": {"embedding.linear.weight": (512, 512 * height * width)},
    }
    assert other == {**usual, **last.get(name, {})}


@pytest.mark.parametrize("size", [(16, 15), (9, 40)], ids=str)
@pytest.mark.parametrize("name", ["attention56", "seresnet18", "vargfacenet"])
def test_networks_with_pooling_support_small_images(name, size):
    net = build_net(name, size, width=0.0625, embedding_size=8)
    _, (out,), _ = net(mx.sym.var("data")).infer_shape(data=(1, 3, *size))
    assert out == (1, 8)


@pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)
def test_the_graph_fits_the_size_that_was_computed(build):
    """Compare with the shapes that MXNet infers, for sides with each remainder modulo 16."""
    for side in range(MIN_SIDE_PIXELS, MIN_SIDE_PIXELS + 16):
        size = (side, 80 - side)
        _, (out,), _ = build(size)(mx.sym.var("data")).infer_shape(data=(1, 3, *size))
        assert out == (1, 8)


def test_features_of_a_side():
    assert [feature_size((side, 112))[0] for side in (9, 16, 17, 32, 33, 112, 113, 128)] == [
        *(1, 1, 2, 2, 3, 7, 8, 8)
    ]
    assert feature_size((112, 96)) == (7, 6)


@pytest.mark.parametrize("name", [name for name in NETS if name not in ALIASES])
@pytest.mark.parametrize("size", [(8, 8), (8, 112), (112, 1), (0, 0), (-112, 112)], ids=str)
def test_too_small_images_are_refused(name, size):
    family = next((each for each in LIMITS if name.startswith(each)), "")
    side, reason = LIMITS.get(family, (9, "the network halves the image size 4 times"))
    sentence = (
        f"net.name: '{name}' needs images of at least {side}x{side} pixels ({reason}), "
        f"got {size[0]}x{size[1]} pixels; use a data set with larger images"
    )
    for refuse in (build_net, lambda *given: check_image_size(*given, side, reason=reason)):
        with pytest.raises(ValueError) as caught:
            refuse(name, size)
        assert str(caught.value) == sentence


@pytest.mark.parametrize("size", [112, (112,), (112, 112, 3), (112.0, 112), "112", (True, 9), None])
def test_an_invalid_size_is_refused(size):
    with pytest.raises(ValueError, match="image_size: must be the height and the width .* got "):
        build_net("mobilefacenet", size)


def test_more_weights_than_mxnet_can_hold_are_refused():
    with pytest.raises(ValueError) as caught:
        build_net("iresnet18", (1600, 1600))
    assert str(caught.value) == (
        "net.name: the last layer of 'iresnet18' would have 2,621,440,000 weights, but an "
        "MXNet array must have fewer than 2,147,483,648 elements, got a last "
        "feature map of 100x100 pixels; use a data set with smaller images"
    )
    assert build_net("mobilefacenet", (1600, 1600)).embedding.pool.conv.weight.shape[2:] == (
        100,
        100,
    )

# SPDX-License-Identifier: Apache-2.0
"""Networks with trunks from gluoncv2: sizes, gradients, settings, and when gluoncv2 is imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from mxnet.gluon import nn

from nets import NETS, build_net
from nets.layer_table import measure
from nets.trunk import blocks_of, scale_channels
from tests.nets.steps import images, train_step

SMALL = {
    "dpn68": ((16, 16), {}),
    "inception_resnet_v2": ((39, 40), {}),
    "ghostnet": ((32, 24), {"width": 0.25}),
    "mobilenet_v3": ((32, 24), {"width": 0.25, "variant": "small"}),
    "efficientnet_b0": ((32, 24), {"width": 0.25}),
}
"""Image size and settings of one small network of each family."""


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_and_inference_agrees_with_the_shapes(name):
    size, options = SMALL[name]
    net = build_net(name, size, embedding_size=8, **options)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    y, gradients = train_step(net, images(4, size=size))
    assert y.shape == (4, 8) and np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert [n for n, gradient in gradients.items() if not abs(gradient).max() > 0] == []
    assert net(images(2, size=size)).shape == (2, 8)


@pytest.mark.parametrize("name", SMALL)
def test_the_statistics_of_batch_normalisation_are_stated(name):
    net = build_net(name)
    norms = [block._kwargs for block in blocks_of(net.trunk) if isinstance(block, nn.BatchNorm)]
    epsilon = 1e-5 if name in ("ghostnet", "mobilenet_v3") else 1e-3
    assert {(norm["eps"], norm["momentum"]) for norm in norms} == {(epsilon, 0.9)}


def test_the_work_is_that_of_an_image_of_twice_the_size():
    assert measure(build_net("ghostnet").trunk).macs == 138_252_080  # of gluoncv2 at 224x224
    assert measure(build_net("mobilenet_v3").trunk).macs == 214_080_960


def test_an_odd_number_of_channels_never_arises_in_ghostnet():
    for width in (0.1, 0.3, 0.55, 1.3):
        assert build_net("ghostnet", (16, 16), width=width).collect_params()


def test_channels_are_rounded_as_in_mobilenet_v2():
    products = ((16, 1.0), (24, 0.35), (32, 0.01), (100, 0.5), (11, 1.0))
    assert [scale_channels(*each) for each in products] == [16, 8, 8, 48, 16]


@pytest.mark.parametrize(
    ("name", "size", "options", "sentence"),
    [
        ("inception_resnet_v2", (38, 112), {}, "net.name: 'inception_resnet_v2' needs images of "
         "at least 39x39 pixels"),
        ("ghostnet", (8, 112), {}, "net.name: 'ghostnet' needs images of at least 9x9 pixels"),
        ("dpn68", (112, 112), {"width": 0.5}, "net.width: unknown setting of net 'dpn68'; known: "
         "embedding_size, output, dropout"),
        ("mobilenet_v3", (112, 112), {"variant": "tiny"}, "net.variant: must be one of 'large', "),
        ("ghostnet", (112, 112), {"output": "GCD"}, "net.output: must be one of 'E', 'F', 'FC', "),
        ("ghostnet", (112, 112), {"dropout": 0.4}, "net.dropout: must be 0 for output 'GDC'"),
        ("dpn69", (112, 112), {}, "net.name: unknown net 'dpn69'; did you mean 'dpn68'?"),
    ],
)  # fmt: skip
def test_what_a_network_lacks_is_refused(name, size, options, sentence):
    with pytest.raises(ValueError) as error:
        build_net(name, size, **options)
    assert str(error.value).startswith(sentence)


def test_gluoncv2_is_imported_only_when_one_of_its_networks_is_built():
    code = (
        "import sys, nets; nets.build_net('vit_t', (16, 16), depth=1); "
        "assert 'gluoncv2' not in sys.modules; "
        "nets.build_net('ghostnet', (16, 16), width=0.1); assert 'gluoncv2' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_every_trunk_network_is_known():
    assert set(SMALL) < set(NETS)

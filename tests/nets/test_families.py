# SPDX-License-Identifier: Apache-2.0
"""One small network of each family: published sizes, training, fused operators, names."""

import mxnet as mx
import numpy as np
import pytest

import ops
from nets import ALIASES, NETS, build_net
from nets.densenet import DenseNet, Layers
from nets.image_size import check_image_size
from nets.iresnet import IResNet
from ranges import settings
from tests.nets.steps import images, learned, train_step
from tools.net_size import measure

SIZE = (40, 33)
NARROW = {"width": 0.125, "embedding_size": 16}
MEMBERS = {
    "mobilefacenet_y2": {**NARROW, "blocks": [2, 1, 1, 1]},
    "mbf": {**NARROW, "blocks": [1, 1, 1, 1]},
    "mbf_large": {**NARROW, "blocks": [2, 1, 1, 1]},
    "gluonfr_mobilefacenet": {**NARROW, "blocks": [1, 1, 1, 1]},
    "iresnet18": {**NARROW, "units": [1, 1, 1, 1], "se": True, "unit": 1, "output": "GAP"},
    "mobilenet_v1": NARROW,
    "mnasnet": NARROW,
    "vargfacenet": {**NARROW, "se": True},
    "seresnet18": NARROW,
    "attention56": {**NARROW, "width": 0.0625},
}
# Parameters in millions and multiply-accumulates in billions for images of 112x112 pixels, of the
# published code or paper: InsightFace's MXNet symbols (y2, m1, mnas, d169), arcface_torch (mbf,
# r200), the VarGFaceNet paper (5.0 M, 1022 M operations of two each).
PUBLISHED = {
    "mobilefacenet_y2": (1.996, 0.469),
    "mbf": (2.06, 0.44),
    "iresnet200": (118.8, 23.4),
    "vargfacenet": (5.0, 0.511),
}


def build(name, seed=0, **options):
    mx.random.seed(seed)
    if name == "densenet":
        net = DenseNet(Layers(16, 16, (2, 1, 1, 1)), SIZE, embedding_size=16)
    else:
        net = build_net(name, SIZE, **{**MEMBERS[name], **options})
    net.initialize()
    return net


def copy_parameters(source, target):
    given = source._collect_params_with_prefix()
    for name, parameter in target._collect_params_with_prefix().items():
        parameter.set_data(given[name].data())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_work_are_those_published(name):
    size, (millions, billions) = measure(build_net(name)), PUBLISHED[name]
    assert abs(size.parameters / (millions * 1e6) - 1) < 0.01
    assert abs(size.macs / (billions * 1e9) - 1) < 0.01


@pytest.mark.parametrize("name", [*MEMBERS, "densenet"])
def test_a_training_step_gives_equal_results_hybridized_and_fused(name):
    plain, hybrid = build(name), build(name, seed=1)
    copy_parameters(plain, hybrid)
    hybrid.hybridize(static_alloc=True, static_shape=True)
    x = images(size=SIZE)
    y, gradients = train_step(plain, x)
    assert y.shape == (4, 16) and np.isfinite(y).all()
    ops.use("native")
    try:
        y_fused, fused = train_step(hybrid, x)
    finally:
        ops.use("plain")
    np.testing.assert_allclose(y_fused, y, rtol=1e-3, atol=1e-3)
    for key, gradient in gradients.items():
        # Sixty layers amplify the rounding of the operators, most of all in very narrow networks.
        distance = np.linalg.norm(fused[key] - gradient)
        assert distance <= 0.03 * np.linalg.norm(gradient) + 1e-3, key
    frozen = set(learned(plain)) - set(gradients)
    fixed = ("embedding.norm.gamma", "input_norm.gamma", "input_norm.beta")
    assert frozen <= set(fixed)
    np.testing.assert_allclose(hybrid(x).asnumpy(), plain(x).asnumpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted({name.rstrip("0123456789") for name in NETS}))
def test_the_names_of_parameters_have_no_counters(name):
    full = next(each for each in NETS if each.rstrip("0123456789") == name)
    first, second = (build_net(full)._collect_params_with_prefix() for _ in range(2))
    assert list(first) == list(second)
    for key, parameter in first.items():
        assert parameter.shape is not None and 0 not in parameter.shape, key
        assert key.rpartition(".")[2] in {
            *("weight", "bias", "gamma", "beta", "running_mean", "running_var", "alpha"),
            *("token", "position"),
        }


def test_short_names_build_the_networks_of_insightface():
    assert {ALIASES[name] for name in ("y1", "m05", "mnas025", "d201", "r200")} == {
        *("mobilefacenet", "mobilenet_v1", "mnasnet", "densenet201", "iresnet200")
    }
    widths = {name: settings(NETS[name])["width"].default for name in ("m1", "m05", "mnas025")}
    assert widths == {"m1": 1.0, "m05": 0.5, "mnas025": 0.25}
    assert build_net("m05").stem.conv.weight.shape == (16, 3, 3, 3)
    assert build_net("y1")._collect_params_with_prefix().keys() == (
        build_net("mobilefacenet")._collect_params_with_prefix().keys()
    )


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("iresnet50", {"unit": 2}, "net.unit: must be one of 1, 3, got 2"),
        ("iresnet50", {"units": [3, 4, 14]}, r"net.units: must have 4 numbers, one for each stage"),
        ("iresnet50", {"units": [3, 0, 14, 3]}, "net.units: must be a whole number from 1 up to"),
        ("iresnet50", {"output": "E2"}, "net.output: must be one of 'E', 'F', .* got 'E2'"),
        ("iresnet50", {"output": "Z"}, "net.output: the output 'Z' needs a feature map of at most"),
        ("y2", {"output": "Z", "width": 0.125}, "net.embedding_size: must be 3136 for output 'Z'"),
        ("y2", {"dropout": 0.4}, "net.dropout: must be 0 for output 'GDC', .* use output 'E', 'F'"),
        ("mbf", {"scale": 0}, "net.scale: must be a whole number from 1 up to 8, got 0"),
        ("mbf", {"blocks": [1]}, "net.blocks: must have 4 numbers, one for the stem"),
        ("densenet121", {"units": [1]}, "net.units: unknown setting of net 'densenet121'"),
    ],
)
def test_a_setting_that_a_net_does_not_have_is_refused(name, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        build_net(name, **options)


def test_images_too_small_for_a_network_are_refused():
    with pytest.raises(ValueError, match="'densenet121' needs images of at least 15x15 pixels"):
        build_net("densenet121", (14, 112))
    assert check_image_size("x", (9, 9)) == (9, 9)
    DenseNet(Layers(16, 16, (1, 1, 1, 1)), (15, 15)).initialize()


def test_other_residual_units_are_recorded_in_the_structure():
    net = IResNet((1, 1, 1, 1), channels=(8, 8, 8, 8), image_size=SIZE, unit=1, se=True)
    names = net._collect_params_with_prefix()
    assert "stages.0.0.act.alpha" in names and "stages.0.0.norm.gamma" not in names
    assert names["stages.0.0.se.squeeze.weight"].shape == (1, 8, 1, 1)
    assert names["stages.1.0.first.conv.weight"].shape == (8, 8, 3, 3)
    assert net.stages[0][0].second.conv._kwargs["stride"] == (2, 2)

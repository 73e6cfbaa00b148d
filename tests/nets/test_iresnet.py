# SPDX-License-Identifier: Apache-2.0
"""IResNet: size, work, the unit's arithmetic, names, training behaviour."""

import mxnet as mx
import numpy as np
import pytest

from nets import build_net
from nets.blocks import BN_EPSILON
from nets.iresnet import IResNet, IRUnit
from nets.layer_table import measure
from tests.nets.steps import images, learned, train_step

SIZE = (32, 32)
SMALL = {
    "units": (2, 1, 1, 1),
    "channels": (8, 8, 16, 16),
    "embedding_size": 16,
    "image_size": SIZE,
}


def build(seed=0, **kwargs):
    mx.random.seed(seed)
    net = IResNet(**{**SMALL, **kwargs})
    net.initialize()
    return net


@pytest.mark.parametrize(
    ("name", "millions", "giga_macs"),
    [
        ("iresnet18", 24.03, 2.61),
        ("iresnet34", 34.14, 4.46),
        ("iresnet50", 43.59, 6.31),
        ("iresnet100", 65.16, 12.09),
    ],
)
def test_parameters_and_work_are_those_published(name, millions, giga_macs):
    size = measure(build_net(name))
    assert abs(size.parameters / (millions * 1e6) - 1) < 0.01
    assert abs(size.macs / (giga_macs * 1e9) - 1) < 0.01


def convolve(x, weight, stride):
    """Convolve (B, C, H, W) with padding of half a filter, in float64."""
    edge = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows[:, :, ::stride, ::stride], weight)


def normalise(x, norm):
    mean, var, gamma, beta = (
        getattr(norm, name).data().asnumpy().astype("f8")[None, :, None, None]
        for name in ("running_mean", "running_var", "gamma", "beta")
    )
    return (x - mean) / np.sqrt(var + BN_EPSILON) * gamma + beta


@pytest.mark.parametrize(
    ("channels", "stride", "project"), [(4, 1, False), (6, 2, True), (4, 2, True), (6, 1, True)]
)
def test_the_unit_equals_float64_numpy(channels, stride, project):
    random = np.random.RandomState(0)
    unit = IRUnit(4, channels, stride, project)
    unit.initialize()
    for name, parameter in unit._collect_params_with_prefix().items():
        if not name.endswith("conv.weight"):  # not the initial ones and zeros
            parameter.set_data(mx.nd.array(random.uniform(0.2, 0.9, parameter.shape)))
    x = random.randn(2, 4, 6, 6).astype("f4")
    y = unit(mx.nd.array(x)).asnumpy()

    weight = {
        name: p.data().asnumpy().astype("f8")
        for name, p in unit._collect_params_with_prefix().items()
    }
    z = convolve(normalise(x.astype("f8"), unit.norm), weight["first.conv.weight"], 1)
    z = normalise(z, unit.first.norm)
    z = np.where(z > 0, 1.0, weight["first.act.alpha"][None, :, None, None]) * z
    z = normalise(convolve(z, weight["second.conv.weight"], stride), unit.second.norm)
    if project:
        straight = convolve(x.astype("f8"), weight["shortcut.conv.weight"], stride)
        z += normalise(straight, unit.shortcut.norm)
    else:
        z += x
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-4)


def test_only_the_first_unit_of_a_stage_strides_and_projects():
    net = build(units=(2, 3, 1, 2))
    x = mx.nd.zeros((1, 8, 32, 32))
    for stage, repeats in zip(net.stages, (2, 3, 1, 2)):
        assert [unit.shortcut is not None for unit in stage] == [True] + [False] * (repeats - 1)
        before, x = x.shape, stage(x)
        assert x.shape[2] * 2 == before[2]


@pytest.mark.parametrize(
    ("size", "image_size"), [(16, (32, 32)), (5, (48, 33)), (16, (16, 16)), (8, (9, 50))]
)
def test_output_shape(size, image_size):
    net = build(embedding_size=size, image_size=image_size)
    net.hybridize(static_alloc=True, static_shape=True)
    x = images(3, size=image_size)
    train_step(net, x)
    y = net(x)
    assert y.shape == (3, size)
    assert y.dtype == np.float32
    assert np.isfinite(y.asnumpy()).all()


def test_every_shape_is_known_before_the_first_batch():
    for name, parameter in build()._collect_params_with_prefix().items():
        assert parameter.shape is not None and 0 not in parameter.shape, name
        assert np.isfinite(parameter.data().asnumpy()).all(), name


def test_hybridized_trains_and_infers_like_imperative():
    plain, hybrid = build(), build()
    hybrid.hybridize(static_alloc=True, static_shape=True)
    for step in range(2):  # the second step changes the running statistics of the first
        (y, gradients), (y_hybrid, gradients_hybrid) = (
            train_step(net, images(8, step, SIZE)) for net in (plain, hybrid)
        )
        np.testing.assert_allclose(y_hybrid, y, rtol=1e-4, atol=1e-4)
        for name, gradient in gradients.items():
            limit = 1e-3 * abs(gradient).max() + 1e-6
            np.testing.assert_allclose(gradients_hybrid[name], gradient, atol=limit, err_msg=name)
    before = plain(images(size=SIZE)).asnumpy()
    np.testing.assert_allclose(hybrid(images(size=SIZE)).asnumpy(), before, rtol=1e-3, atol=1e-3)


def test_every_learned_parameter_but_the_last_scale_gets_a_gradient():
    net = build()
    net.hybridize(static_alloc=True, static_shape=True)
    _, gradients = train_step(net, images(8, size=SIZE))
    assert set(learned(net)) - set(gradients) == {"embedding.norm.gamma"}
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert abs(gradient).max() > 0, name
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.1})
    trainer.step(1)
    np.testing.assert_array_equal(net.embedding.norm.gamma.data().asnumpy(), 1.0)


def test_dropout_acts_on_the_last_features_in_training_only():
    net, whole = build(dropout=0.4), build()
    x = images(8, size=SIZE)
    # The dropout follows all running statistics, so inference equals that of a net without it.
    np.testing.assert_array_equal(net(x).asnumpy(), whole(x).asnumpy())
    mx.random.seed(1)
    with mx.autograd.train_mode():
        features = mx.nd.ones((50, 16, 2, 2))
        kept = net.embedding.dropout(features).asnumpy()
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.6)}
    assert abs((kept == 0).mean() - 0.4) < 0.05
    (first, _), (second, _), (plain, _) = (train_step(n, x) for n in (net, net, whole))
    assert abs(first - second).max() > 1e-3
    assert abs(first - plain).max() > 1e-3


def test_parameter_names_are_structural_and_stable():
    names = list(build()._collect_params_with_prefix())
    assert names == list(build()._collect_params_with_prefix())  # names have no counter
    for name in (
        "stem.conv.weight",
        "stem.act.alpha",
        "stages.0.1.norm.gamma",
        "stages.0.1.first.conv.weight",
        "stages.0.1.first.norm.running_var",
        "stages.0.1.first.act.alpha",
        "stages.0.1.second.norm.beta",
        "stages.3.0.shortcut.conv.weight",
        "embedding.feature_norm.running_mean",
        "embedding.linear.weight",
        "embedding.norm.beta",
    ):
        assert name in names
    assert len(names) == 6 + 5 * 15 + 4 * 5 + 4 + 1 + 4  # stem, units, shortcuts, embedding


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"embedding_size": 0},
            "net.embedding_size: must be a whole number from 1 up to 8192, got 0; the",
        ),
        ({"dropout": 1.0}, "net.dropout: must be a number from 0 to below 1, got 1.0; dropout 0"),
        ({"dropout": -0.1}, "net.dropout: must be a number from 0 to below 1, got -0.1; "),
        ({"dropout": True}, "net.dropout: must be a number from 0 to below 1, got True; "),
        ({"dropout": float("nan")}, "net.dropout: must be a number from 0 to below 1, got nan; "),
        ({"dropout": "0.4"}, "net.dropout: must be a number from 0 to below 1, got '0.4'; "),
        ({"depth": 5}, "net.depth: unknown setting of net 'iresnet50'; known: width"),
    ],
)
def test_invalid_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError) as error:
        build_net("iresnet50", **settings)
    assert str(error.value).startswith(sentence)


def test_settings_reach_the_net():
    net = build_net("iresnet18", embedding_size=128, dropout=0.4)
    assert net.embedding.linear.weight.shape == (128, 512 * 7 * 7)
    assert net.embedding.dropout._rate == 0.4

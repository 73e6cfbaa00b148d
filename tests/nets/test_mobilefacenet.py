# SPDX-License-Identifier: Apache-2.0
"""MobileFaceNet: size, work, names, training behaviour."""

import inspect

import mxnet as mx
import numpy as np
import pytest

from nets import NETS, build_net
from nets.layer_table import measure
from nets.mobilefacenet import scale_channels
from ranges import settings
from tests.nets.steps import images, learned, train_step

SMALL = {"width": 0.125, "embedding_size": 16}


def build(seed=0, **kwargs):
    mx.random.seed(seed)
    net = build_net("mobilefacenet", **kwargs)
    net.initialize()
    return net


def test_parameters_and_work_are_those_published():
    size = measure(build_net("mobilefacenet"))
    assert abs(size.parameters / 1.003e6 - 1) < 0.01
    assert abs(size.macs / 0.221e9 - 1) < 0.01


@pytest.mark.parametrize(("size", "count"), [(16, 1), (16, 3), (100, 2)])
def test_output_shape(size, count):
    net = build(width=0.125, embedding_size=size)
    y = net(images(count))
    assert y.shape == (count, size)
    assert y.dtype == np.float32
    assert np.isfinite(y.asnumpy()).all()


def test_width_multiplies_the_channels():
    half = build(width=0.5)
    assert half.stem.conv.weight.shape == (32, 3, 3, 3)
    assert half.last.conv.weight.shape == (256, 64, 1, 1)
    assert half.embedding.linear.weight.shape == (128, 256)
    assert [scale_channels(64, w) for w in (1.0, 0.5, 0.3, 0.01, 1.3)] == [64, 32, 16, 8, 80]


def test_every_shape_is_known_before_the_first_batch():
    for name, parameter in build(**SMALL)._collect_params_with_prefix().items():
        assert parameter.shape is not None and 0 not in parameter.shape, name
        assert np.isfinite(parameter.data().asnumpy()).all(), name


def test_hybridized_trains_and_infers_like_imperative():
    plain, hybrid = build(**SMALL), build(**SMALL)
    hybrid.hybridize(static_alloc=True, static_shape=True)
    for step in range(2):  # the second step changes the running statistics of the first
        (y, gradients), (y_hybrid, gradients_hybrid) = (
            train_step(net, images(seed=step)) for net in (plain, hybrid)
        )
        np.testing.assert_allclose(y_hybrid, y, rtol=1e-4, atol=1e-4)
        for name, gradient in gradients.items():
            limit = 1e-3 * abs(gradient).max() + 1e-6
            np.testing.assert_allclose(gradients_hybrid[name], gradient, atol=limit, err_msg=name)
    before = plain(images()).asnumpy()
    np.testing.assert_allclose(hybrid(images()).asnumpy(), before, rtol=1e-3, atol=1e-3)


def test_training_and_inference_share_parameters_when_hybridized():
    net = build(**SMALL)
    net.hybridize(static_alloc=True, static_shape=True)
    x = images()
    before = net(x).asnumpy()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    train_step(net, x)
    trainer.step(4)
    after = net(x).asnumpy()
    assert abs(after - before).max() > 1e-4
    # An imperative net with equal parameters gives equal results: the graph has no stale values.
    fresh = build(seed=1, **SMALL)
    for name, parameter in net._collect_params_with_prefix().items():
        fresh._collect_params_with_prefix()[name].set_data(parameter.data())
    np.testing.assert_allclose(fresh(x).asnumpy(), after, rtol=1e-4, atol=1e-4)


def test_every_learned_parameter_gets_a_gradient():
    net = build(**SMALL)
    net.hybridize(static_alloc=True, static_shape=True)
    _, gradients = train_step(net, images())
    frozen = set(learned(net)) - set(gradients)
    assert frozen == {"embedding.norm.gamma"}
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert abs(gradient).max() > 0, name


def test_embedding_norm_keeps_its_scale_and_learns_its_shift():
    net = build(**SMALL)
    y, gradients = train_step(net, images())
    weights = np.arange(y.size).reshape(y.shape) / y.size
    np.testing.assert_allclose(gradients["embedding.norm.beta"], weights.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-4)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.1})
    trainer.step(1)
    np.testing.assert_array_equal(net.embedding.norm.gamma.data().asnumpy(), 1.0)


def test_seeds_reproduce_the_parameters():
    first, same, other = (build(seed, **SMALL)._collect_params_with_prefix() for seed in (3, 3, 4))
    for name in first:
        np.testing.assert_array_equal(first[name].data().asnumpy(), same[name].data().asnumpy())
    name = "stem.conv.weight"
    assert (first[name].data().asnumpy() != other[name].data().asnumpy()).any()


def test_parameter_names_are_structural_and_stable():
    names = list(build(**SMALL)._collect_params_with_prefix())
    assert names == list(build(**SMALL)._collect_params_with_prefix())  # names have no counter
    block = [
        f"stages.1.6.{part}"
        for part in (
            "expand.conv.weight",
            "expand.norm.gamma",
            "expand.act.alpha",
            "depthwise.conv.weight",
            "depthwise.norm.running_var",
            "depthwise.act.alpha",
            "project.conv.weight",
            "project.norm.beta",
        )
    ]
    ends = ["stem.conv.weight", "stem_depthwise.act.alpha", "last.act.alpha"]
    tail = ["embedding.pool.conv.weight", "embedding.linear.weight", "embedding.norm.running_mean"]
    for name in block + ends + tail:
        assert name in names
    assert len(names) == 283


def test_keyword_arguments_of_builders_are_the_schema():
    for builder in NETS.values():
        image_size = next(iter(inspect.signature(builder).parameters.values()))
        assert (image_size.name, image_size.default) == ("image_size", (112, 112))
        assert settings(builder)
        for setting in settings(builder).values():
            number = setting.entry or setting
            if number.kind in (int, float):
                assert number.range and number.range.advice
            assert not setting.problem(setting.default)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "mobilefacenets",
            {},
            "net.name: unknown net 'mobilefacenets'; did you mean 'mobilefacenet'? known: mob",
        ),
        ("x", {}, "net.name: unknown net 'x'; known: mobilefacenet"),
        (
            "mobilefacenet",
            {"depth": 3},
            "net.depth: unknown setting of net 'mobilefacenet'; ",
        ),
        ("mobilefacenet", {"width": 0}, "net.width: must be a number above 0 up to 8, got 0; the"),
        ("mobilefacenet", {"width": "1"}, "net.width: must be a number above 0 up to 8, got '1'"),
        ("mobilefacenet", {"width": True}, "net.width: must be a number above 0 up to 8, got True"),
        (
            "mobilefacenet",
            {"embedding_size": 0},
            "net.embedding_size: must be a whole number from 1 up to 8192, got 0",
        ),
        (
            "mobilefacenet",
            {"embedding_size": 1.5},
            "net.embedding_size: must be a whole number from 1 up to 8192, got 1.5",
        ),
    ],
)
def test_invalid_settings_are_refused(name, options, sentence):
    with pytest.raises(ValueError) as error:
        build_net(name, **options)
    assert str(error.value).startswith(sentence)


def test_the_embedding_size_may_equal_the_channels_of_the_last_layer():
    # MXNet reused the batch normalisation of (B, C, 1, 1) for (B, E) and crashed.
    net = build_net("mobilefacenet", width=0.125, embedding_size=64)
    net.initialize()
    with mx.autograd.record():
        embedding = net(mx.nd.ones((2, 3, 112, 112)))
    embedding.backward()
    assert net(mx.nd.ones((2, 3, 112, 112))).shape == (2, 64)
    mx.nd.waitall()


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet50"])
@pytest.mark.parametrize("size", [10**9, 8193, 0])
def test_an_enormous_embedding_is_refused(name, size):
    with pytest.raises(ValueError, match=rf"net\.embedding_size: must be .* 8192, got {size}; "):
        build_net(name, embedding_size=size)

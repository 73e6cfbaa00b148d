# SPDX-License-Identifier: Apache-2.0
"""Layer groups: names, unknown names, and the update of groups with a factor against NumPy."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import ops
from heads import build_head
from launch.ranks.comm import Comm
from nets import build_net
from training.layer_groups import check_lr_factors, find_group, list_groups, set_lr_factors
from training.step import build_optimizer, collect_parameters, train_step

NET = ("mobilefacenet", (32, 32))
FACTORS = {"stem": 0.0, "stages": 0.1, "stages.1": 0.5, "head": 10.0}


def names():
    return list(build_net(*NET, width=0.125, embedding_size=8)._collect_params_with_prefix())


def test_groups_are_the_blocks_of_the_net_their_numbered_parts_and_the_head():
    assert list_groups(names()) == [
        *("stem", "stem_depthwise", "stages", "stages.0", "stages.1", "stages.2", "last"),
        *("embedding", "head"),
    ]
    graph = [f"stage{i}_unit1_conv{j}_weight" for i in (1, 2) for j in (1, 2)]
    assert list_groups(graph) == ["stage1", "stage2", "head"]
    assert list_groups([f"conv{i}_weight" for i in range(100)])[-2:] == ["60 more", "head"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("net.stem.conv.weight", "stem"),
        ("net.stem_depthwise.conv.weight", None),
        ("net.stages.0.1.expand.conv.weight", "stages"),
        ("net.stages.1.1.expand.conv.weight", "stages.1"),
        ("net.embedding.linear.weight", None),
        ("head.weight", "head"),
        ("net.head_conv_weight", None),
        ("net.stem_conv_weight", "stem"),
    ],
)
def test_the_longest_name_that_fits_applies(name, group):
    assert find_group(name, FACTORS) == group


def test_an_unknown_group_is_refused_with_the_list_of_groups():
    assert check_lr_factors(names(), FACTORS) == ""
    assert check_lr_factors(names(), {"stages.1.0.expand": 1.0}) == ""
    sentence = check_lr_factors(names(), {"stages.7": 1.0, "ste": 1.0, "head": 1.0})
    assert sentence == (
        "optim.lr_factors: must name layer groups, got 'stages.7', 'ste'; the groups of this net "
        "are stem, stem_depthwise, stages, stages.0, stages.1, stages.2, last, embedding, head"
    )


def make(factors, name="sgd", fused=False, weight_decay=0.0):
    mx.random.seed(3)
    net = build_net(*NET, width=0.125, embedding_size=8)
    step = {"momentum": 0.9, "weight_decay": weight_decay}
    head = build_head("cosface", 5, 8, fused_update=step if fused else None)
    parameters = collect_parameters(net, head)
    notice = set_lr_factors(parameters, factors)
    for block in (net, head):
        block.initialize()
        block.hybridize(static_alloc=True, static_shape=True)
    optimizer = build_optimizer(parameters, name, 0.01, 0.9, weight_decay)
    return net, head, parameters, Comm().trainer(parameters, optimizer), notice


def moved(factors, steps=1, **options):
    """Return the change of each trainable parameter in a few steps."""
    net, head, parameters, trainer, _ = make(factors, **options)
    before = {name: p.data().asnumpy() for name, p in parameters.items()}
    random = np.random.default_rng(1)
    for _ in range(steps):
        image, label = random.uniform(-1, 1, (4, 3, 32, 32)), random.integers(0, 5, 4)
        train_step(net, head, trainer, mx.nd.array(image), mx.nd.array(label), mx.nd.ones((1,)))
    return {
        name: p.data().asnumpy() - before[name]
        for name, p in parameters.items()
        if not name.endswith(("running_mean", "running_var", "embedding.norm.gamma"))
    }


@pytest.mark.parametrize(
    ("operators", "fused", "name"),
    [
        ("plain", False, "sgd"),
        ("plain", False, "nag"),
        ("native", False, "sgd"),
        ("native", True, "sgd"),
    ],
)
def test_a_factor_scales_the_first_update_of_its_group(operators, fused, name):
    ops.use(operators)
    base = moved({}, fused=fused, name=name, weight_decay=1e-3)
    found = moved(FACTORS, fused=fused, name=name, weight_decay=1e-3)
    assert all(np.abs(change).max() > 0 for change in base.values())
    for key, change in found.items():
        group = find_group(key, FACTORS)
        expected = base[key] * (1.0 if group is None else FACTORS[group])
        np.testing.assert_allclose(
            change, expected, rtol=1e-3, atol=1e-4 * np.abs(base[key]).max() + 1e-7, err_msg=key
        )


@pytest.mark.parametrize("operators", ["plain", "native"])
@pytest.mark.parametrize("fused", [False, True])
def test_frozen_groups_keep_every_bit_and_have_no_gradient_and_no_momentum(operators, fused):
    ops.use("native" if fused else operators)
    factors = {"stem": 0.0, "stages.0": 0.0, "head": 0.0}
    net, head, parameters, trainer, notice = make(factors, fused=fused, weight_decay=0.1)
    assert notice.startswith("learning rate factors: stem 0 (6 parameters, frozen), stages.0 0 (")
    image, label = mx.nd.random.uniform(-1, 1, (4, 3, 32, 32)), mx.nd.array([0, 1, 2, 3])
    before = {name: p.data().asnumpy() for name, p in parameters.items()}
    for _ in range(3):
        train_step(net, head, trainer, image, label, mx.nd.ones((1,)), clip_norm=1.0)
    learned = [
        n for n in parameters if not n.endswith(("running_mean", "running_var", "norm.gamma"))
    ]
    frozen = {name for name in learned if find_group(name, factors)}
    assert "head.weight" in frozen and "net.stages.0.1.expand.conv.weight" in frozen
    states = trainer._updaters[0].states
    for index, parameter in enumerate(trainer._params):
        name = next(n for n, p in parameters.items() if p is parameter)
        if name in learned:
            same = np.array_equal(parameter.data().asnumpy(), before[name])
            assert same == (name in frozen) and (index in states) == (name not in frozen)
        if name in frozen:
            with pytest.raises(RuntimeError, match="grad_req='null'"):
                parameter.grad()
    if fused:
        assert head.momentum == {}

# SPDX-License-Identifier: Apache-2.0
"""Updates of the centres of a shard: the right rows, by the equations of SGD."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from heads.shard_centres import ShardCentres, Step

MOMENTUM, WEIGHT_DECAY, LR = 0.9, 0.1, 0.5
IMAGES = 4


class FixedGradient:
    """Scores whose gradient of the class centres is 1, 2, 3, ... by row."""

    def __init__(self, used):
        self.used, self.maximum = used, mx.nd.zeros((IMAGES,))

    @property
    def gradient(self):
        return np.arange(1.0, len(self.used) + 1)[:, None] * np.ones(self.used.shape)

    def centre_gradient(self, out):
        out[:] = mx.nd.array(self.gradient)


def centres_of(parameter, centres_per_class=1, own_update=True):
    step = Step(MOMENTUM, WEIGHT_DECAY)
    return ShardCentres(
        parameter, step, centres_per_class=centres_per_class, own_update=own_update, fused=False
    )


@pytest.fixture
def parameter():
    parameter = gluon.Parameter("weight", shape=(6, 2), init=mx.init.Normal(1.0))
    parameter.initialize()
    return parameter


def test_a_step_changes_sampled_rows_and_their_momentum_only(parameter):
    centres, rows = centres_of(parameter), [1, 4]
    weight, velocity = parameter.data().asnumpy(), np.zeros((6, 2))
    for sample in (rows, [4, 5]):
        scores = FixedGradient(centres.use(np.array(sample, np.int32)))
        centres.keep(scores)
        centres.update(mx.nd.array([LR]))
        gradient = scores.gradient / IMAGES + WEIGHT_DECAY * weight[sample]
        velocity[sample] = MOMENTUM * velocity[sample] - LR * gradient
        weight[sample] += velocity[sample]
        assert np.allclose(parameter.data().asnumpy(), weight, atol=1e-6)
        assert np.allclose(centres.momentum["weight"].asnumpy(), velocity, atol=1e-6)
    assert not velocity[[0, 2, 3]].any()


def test_a_sampled_class_brings_all_its_centres(parameter):
    used = centres_of(parameter, centres_per_class=3).use(np.array([1], np.int32))
    assert np.array_equal(used.asnumpy(), parameter.data().asnumpy()[3:])


def test_a_step_without_a_sample_changes_all_rows(parameter):
    centres, before = centres_of(parameter), parameter.data().asnumpy()
    scores = FixedGradient(centres.use(None))
    centres.keep(scores)
    centres.update(mx.nd.array([LR]))
    expected = before - LR * (scores.gradient / IMAGES + WEIGHT_DECAY * before)
    assert np.allclose(parameter.data().asnumpy(), expected, atol=1e-6)


def test_centres_with_their_own_update_have_no_gradient_array(parameter):
    centres_of(parameter)
    assert parameter.grad_req == "null"


def test_a_trainer_gets_the_gradient_of_all_centres(parameter):
    centres, before = centres_of(parameter, own_update=False), parameter.data().asnumpy()
    trainer = gluon.Trainer([parameter], "sgd", {"learning_rate": LR}, kvstore=None)
    scores = FixedGradient(centres.use(None))
    centres.keep(scores)
    assert np.array_equal(parameter.grad().asnumpy(), scores.gradient)
    assert centres.momentum == {}
    trainer.update(IMAGES)
    expected = before - LR * scores.gradient / IMAGES
    assert np.allclose(parameter.data().asnumpy(), expected, atol=1e-6)


def test_frozen_centres_have_no_momentum(parameter):
    parameter.lr_mult = 0.0
    assert centres_of(parameter).momentum == {}


def test_the_factor_on_the_learning_rate_applies(parameter):
    parameter.lr_mult = 2.0
    centres, before = centres_of(parameter), parameter.data().asnumpy()
    scores = FixedGradient(centres.use(None))
    centres.keep(scores)
    centres.update(mx.nd.array([LR]))
    expected = before - 2 * LR * (scores.gradient / IMAGES + WEIGHT_DECAY * before)
    assert np.allclose(parameter.data().asnumpy(), expected, atol=1e-6)


def test_a_second_update_without_a_forward_pass_is_refused(parameter):
    with pytest.raises(RuntimeError, match="no forward pass since the last update"):
        centres_of(parameter).update(mx.nd.array([LR]))


def test_frozen_centres_get_no_gradient(parameter):
    parameter.grad_req = "null"
    centres, before = centres_of(parameter, own_update=False), parameter.data().asnumpy()
    centres.keep(FixedGradient(centres.use(None)))
    with pytest.raises(RuntimeError, match="grad_req='null'"):
        parameter.grad()
    assert centres.momentum == {} and np.array_equal(parameter.data().asnumpy(), before)

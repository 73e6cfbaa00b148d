# SPDX-License-Identifier: Apache-2.0
"""Heads with distributed class centres on a single rank; tests/parallel has several ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

import ops
from heads import HEADS, build_head
from heads.shard_centres import Step
from heads.sharded import ShardedClasses, Sharding
from ops import OperatorError

SHARDABLE = {
    *("softmax", "normface", "l2_softmax", "cosface", "arcface", "combined", "sphereface"),
    *("sv_softmax", "curricularface", "adaface", "magface", "elasticface", "circle", "coco"),
    "sub_center_arcface",
}
NUM_CLASSES, EMBEDDING_SIZE = 40, 8
LABELS = np.array([3, 17, 3, 39])
MOMENTUM = {"momentum": 0.9, "weight_decay": 0.1}


def built(name="arcface", *, seed=1, fused=False, **settings):
    mx.random.seed(seed)
    head = build_head(
        name,
        NUM_CLASSES,
        EMBEDDING_SIZE,
        fused_update=MOMENTUM if fused else None,
        sharding=Sharding(seed=4, step=Step(**MOMENTUM)),
        **settings,
    )
    head.initialize()
    return head


def passed(head, label=LABELS, seed=2):
    """Return loss, cosine and gradient of the embeddings after a forward and backward pass."""
    mx.random.seed(seed)
    embedding = mx.nd.random.normal(shape=(len(label), EMBEDDING_SIZE))
    embedding.attach_grad()
    with autograd.record():
        loss, cosine = head(embedding, mx.nd.array(label), mx.nd.array([0.7]))
    loss.backward()
    return [array.asnumpy() for array in (loss, cosine, embedding.grad)]


@pytest.mark.parametrize("name", sorted(SHARDABLE))
def test_a_sharded_head_on_one_rank_equals_the_head(name, operators):
    heads = [built(name, sharded=sharded) for sharded in (False, True)]
    assert np.array_equal(*[head.weight.data().asnumpy() for head in heads])  # initial values
    for head in heads:
        head.weight.set_data(mx.nd.array(np.random.default_rng(0).normal(size=head.weight.shape)))
    one, other = ([*passed(head), head.weight.grad().asnumpy()] for head in heads)
    for complete, shards in zip(one, other, strict=True):
        assert abs(complete - shards).max() <= 2e-5 * max(1.0, abs(complete).max())
    assert abs(one[3]).max() > 0.01


@pytest.mark.parametrize("name", sorted(set(HEADS) - SHARDABLE))
@pytest.mark.parametrize("setting", [{"sharded": True}, {"sample_rate": 0.5}])
def test_other_heads_refuse_by_name(name, setting):
    (key, value), *_ = setting.items()
    with pytest.raises(ValueError, match=f"head.{key}: not available for '{name}', got {value}; "):
        build_head(name, NUM_CLASSES, EMBEDDING_SIZE, **setting)


def test_a_class_refuses_without_the_configuration():
    with pytest.raises(ValueError, match="head.sharded: not available for 'Center', got True; "):
        HEADS["center"](NUM_CLASSES, EMBEDDING_SIZE, sharded=True)


@pytest.mark.parametrize(
    "name", ["softmax", "l2_softmax", "sv_softmax", "curricularface", "circle", "center", "lgm"]
)
def test_heads_without_plain_cosines_refuse_the_filter(name):
    with pytest.raises(ValueError, match=f"head.interclass_filter: not available for '{name}'"):
        build_head(name, NUM_CLASSES, EMBEDDING_SIZE, interclass_filter=0.4)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("arcface", {"sample_rate": 0.5}, "head.sample_rate: a rate below 1 requires head.sha"),
        ("magface", {"sample_rate": 0.5}, "requires head.sharded=true, got 0.5; set head.sharded="),
        ("elasticface", {"sample_rate": 0.5}, "head.sample_rate: a rate below 1 requires head"),
        ("arcface", {"sharded": True, "sample_rate": 0}, "head.sample_rate: must be a number abo"),
        ("arcface", {"sharded": True, "sample_rate": 1.5}, "head.sample_rate: must be a number a"),
        ("arcface", {"interclass_filter": 2.0}, "head.interclass_filter: must be a number from 0"),
        ("softmax", {"sharded": True, "use_bias": True}, "head.use_bias: requires head.sharded=f"),
    ],
)
def test_a_wrong_setting_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_head(name, NUM_CLASSES, EMBEDDING_SIZE, **settings)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["arcface", "sub_center_arcface", "adaface"])
def test_a_step_changes_the_sampled_classes_only(name, fused):
    if fused:
        ops.use("native")
    try:
        several = {"sub_centers": 1 if fused else 3} if name == "sub_center_arcface" else {}
        head = built(name, sharded=True, sample_rate=0.25, fused=fused, **several)
        each = head.weight.shape[0] // NUM_CLASSES
        before = head.weight.data().asnumpy()
        passed(head)
        head.update(mx.nd.array([0.5]))
        moved = (head.weight.data().asnumpy() != before).any(axis=1)
        with_momentum = head.momentum["weight"].asnumpy().any(axis=1)
        classes = np.flatnonzero(moved.reshape(NUM_CLASSES, each).any(axis=1))
        assert set(LABELS) <= set(classes.tolist()) and len(classes) == 10
        assert np.array_equal(moved, with_momentum)
        assert head.weight.grad_req == "null"
    finally:
        ops.use("plain")


def test_the_operators_sample_and_update_alike():
    found = []
    for choice, fused in (("plain", False), ("native", False), ("native", True)):
        ops.use(choice)
        head = built(sharded=True, sample_rate=0.25, scale=8.0, fused=fused)
        for seed in range(3):
            values = passed(head, seed=seed)
            head.update(mx.nd.array([0.5]))
        found.append([*values, head.weight.data().asnumpy(), head.momentum["weight"].asnumpy()])
    ops.use("plain")
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert abs(one - two).max() <= 1e-5 * max(1.0, abs(one).max())


def test_a_sampled_loss_is_that_of_a_head_with_the_sampled_classes():
    head = built(sharded=True, sample_rate=0.25, scale=8.0)
    loss, cosine, gradient = passed(head)
    before = head.weight.data().asnumpy()
    head.update(mx.nd.array([0.5]))
    classes = np.flatnonzero((head.weight.data().asnumpy() != before).any(axis=1))
    small = build_head("arcface", len(classes), EMBEDDING_SIZE, scale=8.0)
    small.initialize()
    small.weight.set_data(mx.nd.array(before[classes]))
    expected = passed(small, np.searchsorted(classes, LABELS))
    for one, other in zip((loss, cosine, gradient), expected, strict=True):
        assert abs(one - other).max() <= 1e-5


def test_a_restored_state_continues_the_samples():
    head, other = (built(sharded=True, sample_rate=0.25) for _ in range(2))
    for _ in range(2):
        passed(head)
        head.update(mx.nd.array([0.0]))
    other.load_sampler_state(head.sampler_state())
    losses = [passed(each)[0] for each in (head, other)]
    assert np.array_equal(*losses)
    assert not np.array_equal(losses[0], passed(built(sharded=True, sample_rate=0.25))[0])


def test_a_head_without_samples_has_no_sampler_state():
    head = built(sharded=True)
    assert head.sampler_state() == {} and head.momentum == {}
    head.load_sampler_state({})


def test_scores_outside_training_use_all_classes_and_draw_nothing():
    head, complete = built(sharded=True, sample_rate=0.25), built()
    embedding = mx.nd.random.normal(shape=(4, EMBEDDING_SIZE))
    losses = [each(embedding, mx.nd.array(LABELS))[0].asnumpy() for each in (head, complete)]
    assert abs(losses[0] - losses[1]).max() <= 2e-5
    assert head.sampler_state()["draws"] == 0


def test_a_forward_pass_outside_training_does_not_disturb_the_update():
    heads = [built(sharded=True, sample_rate=0.25) for _ in range(2)]
    for head, evaluate in zip(heads, (False, True), strict=True):
        passed(head)
        if evaluate:
            head(mx.nd.ones((1, EMBEDDING_SIZE)), mx.nd.array([0]))
        head.update(mx.nd.array([0.5]))
    assert np.array_equal(*[head.weight.data().asnumpy() for head in heads])


@pytest.mark.parametrize("sharded", [False, True])
def test_the_filter_removes_similar_classes_from_loss_and_gradients(sharded, operators):
    # Class 1 has the centre of class 0: without the filter it repels the image of class 0.
    centres = np.eye(NUM_CLASSES, EMBEDDING_SIZE)
    centres[1] = centres[0]
    filtered = built("normface", sharded=sharded, interclass_filter=0.4, scale=10.0)
    unfiltered = built("normface", sharded=sharded, scale=10.0)
    found = []
    for head in (filtered, unfiltered):
        head.weight.set_data(mx.nd.array(centres))
        embedding = mx.nd.array(centres[:1])
        with autograd.record():
            loss, _ = head(embedding, mx.nd.array([0]))
        loss.backward()
        found.append((float(loss.asscalar()), head.weight.grad().asnumpy()))
    others = NUM_CLASSES - 2
    assert found[0][0] == pytest.approx(np.log(1 + (others + 1) * np.exp(-10)), abs=1e-5)
    assert found[1][0] == pytest.approx(np.log(2 + others * np.exp(-10)), abs=1e-5)
    assert not found[0][1][1].any()


def test_a_fused_update_refuses_the_filter_and_heads_that_change_other_classes():
    ops.use("native")
    try:
        with pytest.raises(OperatorError, match="be combined with head.interclass_filter"):
            built(sharded=True, fused=True, interclass_filter=0.4)
        with pytest.raises(OperatorError, match="be combined with head.interclass_filter"):
            built(fused=True, interclass_filter=0.4)
        for name in ("circle", "softmax", "sub_center_arcface"):
            with pytest.raises(OperatorError, match=f"got head.name='{name}'"):
                built(name, sharded=True, fused=True)
    finally:
        ops.use("plain")
    with pytest.raises(OperatorError, match="needs the fused operators"):
        built(sharded=True, fused=True)


@pytest.mark.parametrize("label", [-1, NUM_CLASSES])
def test_a_label_beyond_the_classes_is_refused(label):
    with pytest.raises(ValueError, match=f"must be one of 40 classes, got {label}; use 0 to 39"):
        passed(built(sharded=True, sample_rate=0.25), np.array([0, label]))
    ops.use("native")
    try:
        with pytest.raises(mx.base.MXNetError, match="the label of row 1 must be one of 40 class"):
            passed(built(sharded=True), np.array([0, label]))
    finally:
        ops.use("plain")


@pytest.mark.parametrize("name", sorted(SHARDABLE))
def test_a_sharded_head_predicts_like_the_head(name):
    embedding = mx.nd.random.normal(shape=(30, EMBEDDING_SIZE))
    heads = [built(name, sharded=sharded) for sharded in (False, True)]
    centres = np.random.default_rng(0).normal(size=heads[0].weight.shape)
    for head in heads:
        head.weight.set_data(mx.nd.array(centres))
    one, other = (head.predict(embedding).asnumpy() for head in heads)
    assert np.array_equal(one, other) and len({*one}) > 5


def test_a_head_that_samples_classes_predicts_nothing():
    assert built(sharded=True, sample_rate=0.25).predict(mx.nd.ones((1, EMBEDDING_SIZE))) is None


def test_every_head_that_can_be_sharded_says_so():
    found = {n for n, kind in HEADS.items() if "sharded" not in kind.refused_settings}
    assert found == SHARDABLE
    assert all(issubclass(HEADS[name], ShardedClasses) for name in found)


class ThreadComm:
    """Communication between ranks that are threads of this process."""

    def __init__(self, rank, arrays, barrier):
        self.rank, self.size, self._arrays, self._barrier = rank, len(arrays), arrays, barrier

    def _all(self, array):
        self._arrays[self.rank] = array
        array.wait_to_read()
        self._barrier.wait(60)
        found = list(self._arrays)
        self._barrier.wait(60)
        return found

    def gather_rows(self, array, name):
        return mx.nd.concat(*self._all(array), dim=0)

    def sum_rows(self, array, name):
        return mx.nd.add_n(*self._all(array))


def test_ranks_without_classes_have_the_loss_and_prediction_of_the_whole_head():
    ranks, classes, images = 3, 2, 4
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, EMBEDDING_SIZE)).astype(np.float32)
    embedding = generator.normal(size=(ranks * images, EMBEDDING_SIZE)).astype(np.float32)
    label = generator.integers(0, classes, ranks * images)
    whole = build_head("arcface", classes, EMBEDDING_SIZE)
    whole.initialize()
    whole.weight.set_data(mx.nd.array(centres))
    arrays, barrier = [None] * ranks, threading.Barrier(ranks)
    heads = []
    for rank in range(ranks):
        sharding = Sharding(comm=ThreadComm(rank, arrays, barrier), step=Step(**MOMENTUM))
        head = build_head("arcface", classes, EMBEDDING_SIZE, sharded=True, sharding=sharding)
        head.initialize()
        rows = centres[head.shard.start : head.shard.stop]
        # The row of a rank without classes belongs to no class, so it must have no influence.
        head.weight.set_data(mx.nd.array(rows if len(rows) else embedding[:1]))
        heads.append(head)
    assert heads[2].shard.num_rows == 0

    def run(rank):
        own = slice(rank * images, (rank + 1) * images)
        rows = mx.nd.array(embedding[own])
        rows.attach_grad()
        with autograd.record():
            loss, _ = heads[rank](rows, mx.nd.array(label[own]))
        loss.backward()
        return [a.asnumpy() for a in (loss, rows.grad, heads[rank].predict(rows))]

    with ThreadPoolExecutor(ranks) as pool:
        found = [np.concatenate(parts) for parts in zip(*pool.map(run, range(ranks)))]
    rows = mx.nd.array(embedding)
    rows.attach_grad()
    with autograd.record():
        loss, _ = whole(rows, mx.nd.array(label))
    loss.backward()
    for shards, complete in zip(found, (loss, rows.grad, whole.predict(rows)), strict=True):
        assert np.abs(shards - complete.asnumpy()).max() < 1e-4

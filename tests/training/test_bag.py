# SPDX-License-Identifier: Apache-2.0
"""Triplet mining in bags: the triplets, their batches, and the exchange between ranks."""

from __future__ import annotations

from itertools import islice

import mxnet as mx
import numpy as np
import pytest

from launch.ranks.comm import Comm
from pipeline.loader import Batch
from pipeline.sampling.epoch_orders import Position
from training.bag import MAX_EMPTY_BAGS, Bags, choose_triplets

SIZE, BAG, ALPHA = 6, 24, 0.4  # batch size 6: a bag holds six images of each of four people


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def allowed(embedding, label, alpha, angular):
    """Return the semi-hard negatives of each pair, by a search over all images."""
    d = ((embedding[:, None] - embedding[None]) ** 2).sum(-1)
    if angular:
        d = 2 * np.arcsin(np.sqrt(d) / 2)
    count = range(len(label))
    pairs = [(a, p) for a in count for p in count if a < p and label[a] == label[p]]
    return {
        (a, p): [n for n in count if label[n] != label[a] and d[a, p] < d[a, n] < d[a, p] + alpha]
        for a, p in pairs
    }


@pytest.mark.parametrize("angular", [False, True])
def test_every_pair_gets_a_random_semi_hard_negative(angular):
    random = np.random.default_rng(0)
    label = random.permutation(np.repeat(np.arange(6), 4))
    embedding = unit(np.eye(6)[label] + 0.4 * random.standard_normal((24, 6)))
    semi_hard = allowed(embedding, label, ALPHA, angular)
    assert not all(semi_hard.values()) and any(len(n) > 2 for n in semi_hard.values())
    taken = {pair: set() for pair in semi_hard}
    for seed in range(60):
        triplets = choose_triplets(embedding, label, ALPHA, angular, np.random.default_rng(seed))
        again = choose_triplets(embedding, label, ALPHA, angular, np.random.default_rng(seed))
        assert (triplets == again).all()
        assert [(a, p) for a, p, _ in triplets] == [pair for pair, n in semi_hard.items() if n]
        for a, p, n in triplets.tolist():
            taken[a, p].add(n)
    assert all(taken[pair] == set(negatives) for pair, negatives in semi_hard.items())


def test_people_with_one_image_give_no_triplets():
    embedding = unit(np.random.default_rng(0).standard_normal((5, 3)))
    found = choose_triplets(embedding, np.arange(5), 4.0, False, np.random.default_rng(0))
    assert found.shape == (0, 3) and found.dtype == np.int64


class People:
    """Loader whose images are also the embeddings; each batch shows one person."""

    images_per_epoch = 5 * SIZE

    def __init__(self, spread=0.5, fail_at=None, first=0, fault=ValueError):
        self.number, self.spread, self.fail_at = first, spread, fail_at
        self.fault = fault

    def __next__(self) -> Batch:
        self.number += 1
        if self.number == self.fail_at:
            raise self.fault("the image of key 7 cannot be decoded")
        random = np.random.default_rng(self.number)
        person = np.eye(4)[self.number % 4]
        image = (person + self.spread * random.standard_normal((SIZE, 4))).reshape(SIZE, 1, 2, 2)
        label = mx.nd.full((SIZE,), self.number % 4)
        return Batch(mx.nd.array(image), label, Position(0, self.number * SIZE))


class TwoRanks(Comm):
    """Rank 0 of two ranks; ``others`` are the numbers of batches that rank 1 reports."""

    def __init__(self, others):
        super().__init__(0, 2)
        self.__dict__["others"] = iter(others)

    def gather(self, rows):
        return np.concatenate([rows, [[next(self.others)]]])


def bags(loader=None, comm=Comm(), start=Position(), log=None, alpha=ALPHA):
    return Bags(
        loader or People(),
        lambda image: image.flatten(),
        comm,
        bag=BAG,
        batch_size=SIZE,
        alpha=alpha,
        angular=False,
        seed=3,
        start=start,
        say=[].append if log is None else log.append,
    )


def test_batches_hold_each_triplet_of_a_bag_once():
    log = []
    source = bags(log=log)
    first = next(source)
    (line,) = log
    steps = int(line.split()[-2])
    assert line.startswith("bag at epoch 0, image 0: ") and f" found in {BAG} images, " in line
    batches = [first, *islice(source, steps)]
    inside, (following,) = batches[:steps], batches[steps:]
    assert {b.after for b in inside[:-1]} == {Position(0, 0)}  # a resumed run repeats the bag
    assert inside[-1].after == Position(0, BAG) == following.after
    chosen = [next(People(first=i)) for i in range(4)]
    embedding = unit(np.concatenate([b.image.asnumpy().reshape(SIZE, 4) for b in chosen]))
    label = np.concatenate([b.label.asnumpy() for b in chosen])
    semi_hard, used = allowed(embedding, label, ALPHA, False), set()
    for batch in inside:
        images = unit(batch.image.asnumpy().reshape(SIZE, 4))
        rows = [int(np.abs(embedding - image).sum(1).argmin()) for image in images]
        assert (label[rows] == batch.label.asnumpy()).all()
        for a, p, n in np.reshape(rows, (3, -1)).T.tolist():
            assert n in semi_hard[a, p]
            used.add((a, p))
    triplets = sum(1 for negatives in semi_hard.values() if negatives)
    assert len(used) == steps * 2 == triplets // 2 * 2  # an incomplete batch is dropped
    assert next(bags()).image.asnumpy().tolist() == first.image.asnumpy().tolist()
    resumed = bags(People(first=4), start=Position(0, BAG))
    assert (next(resumed).image.asnumpy() == following.image.asnumpy()).all()


def test_the_rank_with_the_fewest_batches_sets_the_number():
    source = bags(comm=TwoRanks([3, 2, 0, 4]))
    after = [next(source).after for _ in range(6)]
    ends = [Position(0, BAG * i) for i in (0, 0, 1, 1, 2, 3)]
    assert after == ends  # the third bag gives no batch


def test_bags_without_triplets_end_the_run():
    with pytest.raises(ValueError) as caught:
        next(bags(People(spread=0.0)))
    assert str(caught.value) == (
        f"data.bag: {MAX_EMPTY_BAGS} consecutive bags have too few triplets for a batch, got 0 "
        "triplets from the 24 images of the last bag; almost no negatives are within "
        "head.margin=0.4: increase head.margin or data.bag, or end the training"
    )


@pytest.mark.parametrize("fault", [ValueError, OSError, RuntimeError])  # DALI raises RuntimeError
def test_a_rank_with_an_error_reports_it_and_the_others_stop_exchanging(fault):
    comm = TwoRanks([9])
    with pytest.raises(fault, match="key 7"):
        next(bags(People(fail_at=2, fault=fault), comm))
    assert not list(comm.others)
    # After a report of -1, this rank continues without another exchange.
    source = bags(comm=TwoRanks([1, -1]))
    assert [next(source).image.shape for _ in range(8)] == [(SIZE, 1, 2, 2)] * 8


def test_embeddings_that_are_not_finite_raise_an_error():
    with pytest.raises(FloatingPointError, match="the embeddings of a bag are not finite"):
        next(bags(People(spread=np.nan)))

# SPDX-License-Identifier: Apache-2.0
"""Triplets out of bags: which are chosen, how they are dealt, and what ranks tell each other."""

from __future__ import annotations

from itertools import islice

import mxnet as mx
import numpy as np
import pytest

from launch.ranks.comm import Comm
from pipeline.loader import Batch
from pipeline.sampling.epoch_orders import Position
from training.bag import EMPTY_BAGS, Bags, choose_triplets

SIZE, BAG, ALPHA = 6, 24, 0.4  # batch size 6: four people with six images in a bag


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def allowed(embedding, label, alpha, angular):
    """Return the negatives that each pair may have, found one by one."""
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
def test_every_pair_gets_one_of_the_semi_hard_negatives_at_random(angular):
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


def test_nobody_twice_gives_no_triplets():
    embedding = unit(np.random.default_rng(0).standard_normal((5, 3)))
    found = choose_triplets(embedding, np.arange(5), 4.0, False, np.random.default_rng(0))
    assert found.shape == (0, 3) and found.dtype == np.int64


class People:
    """A loader whose images are the embeddings; each holds its number."""

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
    """This rank and another, of whose batches per bag the numbers are given."""

    def __init__(self, others):
        super().__init__(0, 2)
        self.__dict__["others"] = iter(others)

    def gather(self, rows):
        return np.concatenate([rows, [[next(self.others)]]])


def bags(loader=None, comm=Comm(), start=Position(), said=None, alpha=ALPHA):
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
        say=[].append if said is None else said.append,
    )


def test_batches_are_anchors_positives_and_negatives_until_the_bag_is_used_up():
    said = []
    source = bags(said=said)
    first = next(source)
    (line,) = said
    steps = int(line.split()[-2])
    assert line.startswith("bag at epoch 0, image 0: ") and f" of {BAG} images, " in line
    batches = [first, *islice(source, steps)]
    inside, (following,) = batches[:steps], batches[steps:]
    assert {b.after for b in inside[:-1]} == {Position(0, 0)}  # it is begun again on resumption
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
    assert len(used) == steps * 2 == triplets // 2 * 2  # every pair once, but a tail
    assert next(bags()).image.asnumpy().tolist() == first.image.asnumpy().tolist()
    resumed = bags(People(first=4), start=Position(0, BAG))
    assert (next(resumed).image.asnumpy() == following.image.asnumpy()).all()


def test_all_ranks_take_as_many_batches_as_the_one_with_the_fewest():
    source = bags(comm=TwoRanks([3, 2, 0, 4]))
    after = [next(source).after for _ in range(6)]
    ends = [Position(0, BAG * i) for i in (0, 0, 1, 1, 2, 3)]
    assert after == ends  # the third bag is passed over


def test_bags_without_triplets_end_with_a_sentence():
    with pytest.raises(ValueError) as caught:
        next(bags(People(spread=0.0)))
    assert str(caught.value) == (
        f"data.bag: {EMPTY_BAGS} bags in a row gave too few triplets for a batch, got 0 of 24 "
        "images; nobody is left within head.margin=0.4, raise it, enlarge data.bag, or end the "
        "training here"
    )


@pytest.mark.parametrize("fault", [ValueError, OSError, RuntimeError])  # the last is DALI's
def test_a_rank_in_trouble_tells_the_others_and_they_ask_no_more(fault):
    comm = TwoRanks([9])
    with pytest.raises(fault, match="key 7"):
        next(bags(People(fail_at=2, fault=fault), comm))
    assert not list(comm.others)
    # The other side of it: this rank goes on without a word from the one that failed.
    source = bags(comm=TwoRanks([1, -1]))
    assert [next(source).image.shape for _ in range(8)] == [(SIZE, 1, 2, 2)] * 8


def test_embeddings_that_are_not_finite_are_told():
    with pytest.raises(FloatingPointError, match="the embeddings of a bag are not finite"):
        next(bags(People(spread=np.nan)))

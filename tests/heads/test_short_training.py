# SPDX-License-Identifier: Apache-2.0
"""Every loss trains a tiny net on drawn faces; at ten times the learning rate it may raise."""

from __future__ import annotations

import json
import re

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import ops
from heads import HEADS, build_head
from launch.ranks.comm import Comm
from pipeline.loader import Batch
from training.faults import TrainingError
from training.log import RunLog
from training.loop import Cadence, Loop
from training.run import Progress, Run, reseed
from training.step import Model, build_optimizer, collect_parameters

PEOPLE, IMAGES, SHOTS, SIZE, EMBEDDING, STEPS = 6, 4, 8, 28, 16, 40
LR = 0.02
SENTENCE = (
    r"(the loss of step \d+ is|the weights after step \d+ are) not finite, got .*lower optim.lr"
)


@pytest.fixture(scope="module")
def images(make_face):
    """Return all images, normalised: (PEOPLE, SHOTS, 1, SIZE, SIZE)."""

    def image(person, shot):
        jpeg = np.frombuffer(make_face(person, shot), np.uint8)
        grey = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)  # colours would make it too easy
        small = cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        noise = np.random.RandomState(100 * person + shot).randn(SIZE, SIZE)
        return (small[None] - 127.5) / 128 + 0.2 * noise

    found = [[image(p, s) for s in range(SHOTS)] for p in range(PEOPLE)]
    return np.array(found, "f4")


class BatchSource:
    """Infinite batches with some images of each person."""

    images_per_epoch = PEOPLE * SHOTS

    def __init__(self, images, blocks):
        self.images, self.blocks = images, blocks
        self.random = np.random.RandomState(0)

    def __next__(self):
        label = np.arange(PEOPLE).repeat(IMAGES)
        if self.blocks:  # anchors, positives, negatives
            label = np.concatenate([np.arange(PEOPLE), np.arange(PEOPLE), np.arange(PEOPLE) - 1])
            label %= PEOPLE
        shots = np.stack([self.random.permutation(SHOTS) for _ in range(PEOPLE)])
        nth = [(label[:i] == y).sum() for i, y in enumerate(label)]
        images = self.images[label, shots[label, nth]]
        return Batch(mx.nd.array(images), mx.nd.array(label), (0, 0))


def train(name, images, folder, lr, steps=STEPS, **settings):
    """Return the loss of each step; the final weights are finite."""
    reseed(1, 0, 0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, strides=2, in_channels=1), nn.BatchNorm(in_channels=8), nn.PReLU())
    net.add(nn.Conv2D(16, 3, strides=2, in_channels=8), nn.BatchNorm(in_channels=16), nn.PReLU())
    net.add(nn.Flatten(), nn.Dense(EMBEDDING, in_units=16 * 6 * 6, use_bias=False))
    net.add(nn.BatchNorm(in_channels=EMBEDDING, scale=False))
    net.initialize(mx.init.MSRAPrelu())
    head = build_head(name, PEOPLE, EMBEDDING, **settings)
    head.initialize()
    for block in (net, head):
        block.hybridize(static_alloc=True, static_shape=True)
    parameters = collect_parameters(net, head)
    source = BatchSource(images, settings.get("mining") == "blocks")
    size = len(next(source).label)
    optimizer = build_optimizer(parameters, "sgd", lr, 0.9, 5e-4)
    run = Run(
        folder=folder,
        progress=Progress(),
        seed=1,
        global_batch_size=size,
        epoch_images=size,
        end_images=steps * size,
        lr=lambda images: lr,
        margin=lambda images: 1.0,
    )
    loop = Loop(
        Model(net, head, Comm().trainer(parameters, optimizer), parameters),
        source,
        Comm(),
        RunLog(folder),
        run,
        save=lambda: None,
        verify=None,
        cadence=Cadence(log_every=1),
    )
    loop.run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    for parameter in parameters.values():
        assert np.isfinite(parameter.data().asnumpy()).all()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == steps
    return np.array(losses)


CASES = {name: (name, {}) for name in HEADS} | {
    "triplet hard": ("triplet", {"mining": "hard"}),
    "triplet blocks": ("triplet", {"mining": "blocks"}),
    "angular_triplet hard": ("angular_triplet", {"mining": "hard"}),
    "angular_triplet blocks": ("angular_triplet", {"mining": "blocks"}),
}


@pytest.fixture(autouse=True)
def native_operators():
    ops.use("auto")
    yield
    ops.use("plain")


@pytest.mark.parametrize("case", CASES)
def test_the_loss_decreases_with_the_default_settings(case, images, tmp_path):
    name, settings = CASES[case]
    losses = train(name, images, tmp_path, LR, **settings)
    assert np.isfinite(losses).all()
    assert losses[-10:].mean() < losses[:10].mean()


@pytest.mark.parametrize("case", CASES)
def test_ten_times_the_learning_rate_trains_or_raises(case, images, tmp_path):
    name, settings = CASES[case]
    try:
        losses = train(name, images, tmp_path, 10 * LR, steps=20, **settings)
    except TrainingError as error:
        assert re.search(SENTENCE, str(error))
    else:
        assert np.isfinite(losses).all()


def test_a_far_too_high_learning_rate_raises(images, tmp_path):
    with pytest.raises(TrainingError, match=SENTENCE):
        train("softmax", images, tmp_path, 1e30)

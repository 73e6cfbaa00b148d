# SPDX-License-Identifier: Apache-2.0
"""Train a small net to two dimensions with one loss, and look at where the digits lie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

import ops
from heads import build_head
from nets.blocks import ConvNormPReLU
from normalization import MEAN, STD
from training.schedule import learning_rate, margin_fraction
from training.step import build_optimizer, collect_parameters, train_step

if TYPE_CHECKING:
    from tools.digits import Digits
    from tools.gallery.settings import Setting

CLASSES = 10
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
MARGIN_FROM, MARGIN_RISE = 0.2, 0.3  # shares of the run before the margin, and until all of it
AROUND = (1, 8, 3, 5, 0, 6, 4, 9, 7, 2)  # digits that look alike are neighbours
MAX_SHIFT_PIXELS = 1
TRAIN_SHOWN = 20_000  # images of the training set that are embedded at the end
EMBED_BATCH = 500


class GalleryError(RuntimeError):
    """A loss did not train."""


class DigitNet(ops.TwoGraphs):
    """Three convolutions that halve the image, one linear map to the plane.

    LeNet-like in its size; strides do the pooling.  The embedding is linear: a rectifier or a
    batch normalisation there would bend what the loss made of the plane.

    Inputs
    ------
    x : (B, 1, 28, 28) float32

    Outputs
    -------
    (B, 2) float32
    """

    def __init__(self, width: int = 24, **kwargs) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(
                ConvNormPReLU(1, width, 5, 2, 2),
                ConvNormPReLU(width, 2 * width, 3, 2, 1),
                ConvNormPReLU(2 * width, 4 * width, 3, 2, 1),
            )
            self.embedding = nn.Dense(2, use_bias=False, in_units=4 * width * 16)

    def hybrid_forward(self, F, x):
        return self.embedding(self.body(x))


@dataclass(frozen=True)
class Outcome:
    """What one loss made of the digits; embeddings (N, 2), labels (N,)."""

    train_embeddings: np.ndarray
    train_labels: np.ndarray
    test_embeddings: np.ndarray
    test_labels: np.ndarray
    train_accuracy: float
    test_accuracy: float
    images_per_second: float
    """Of training alone."""


def train(name: str, setting: Setting, digits: Digits, epochs: float, seed: int) -> Outcome:
    """Train with one loss and embed both halves.

    Raises
    ------
    GalleryError
        If a loss is not finite.
    """
    mx.random.seed(seed)
    random = np.random.default_rng(seed)
    net = DigitNet()
    head = build_head(name, CLASSES, 2, **setting.head)
    net.initialize(mx.init.Xavier(magnitude=2.0))
    head.initialize()
    if setting.centre_length:
        _spread_centres(head, setting.centre_length)
    net.hybridize(static_alloc=True)
    head.hybridize(static_alloc=True)
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(parameters, "nag", setting.lr, MOMENTUM, WEIGHT_DECAY)
    trainer = gluon.Trainer(parameters, optimizer, kvstore=None)
    batches = _person_batches if setting.by_person else _shuffled_batches
    end = max(1, round(epochs * len(digits.train_labels) / setting.batch)) * setting.batch
    losses = []
    began = time.perf_counter()
    for step, chosen in enumerate(batches(digits.train_labels, setting.batch, end, random)):
        images = step * setting.batch
        trainer.set_learning_rate(
            learning_rate(images + 1, "cosine", setting.lr, end, warmup=round(setting.warmup * end))
        )
        share = margin_fraction(images, round(MARGIN_FROM * end), round(MARGIN_RISE * end))
        loss, _ = train_step(
            net,
            head,
            trainer,
            _device_images(shift(digits.train_images[chosen], random)),
            mx.nd.array(digits.train_labels[chosen]),
            mx.nd.array([share]),
            clip_norm=setting.clip_norm,
        )
        losses.append(loss)
        if len(losses) == 50 or images + setting.batch == end:
            # Sync: what the losses were, once in many steps.
            values = mx.nd.concat(*losses, dim=0).asnumpy()
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                where = step + 1 - len(losses) + bad[0]
                raise GalleryError(
                    f"{name}: the loss of step {where} is not finite, got {values[bad[0]]}; "
                    "lower its lr in tools/gallery/settings.py"
                )
            losses = []
    rate = end / (time.perf_counter() - began)
    shown = slice(TRAIN_SHOWN)
    train_embeddings = _embed(net, digits.train_images[shown])
    test_embeddings = _embed(net, digits.test_images)
    train_labels, test_labels = digits.train_labels[shown], digits.test_labels
    weights = {k: p.data().asnumpy() for k, p in head._collect_params_with_prefix().items()}
    means = _means(setting.rule, train_embeddings, train_labels)
    accuracies = (
        float((classify(setting.rule, e, weights, means) == labels).mean())
        for e, labels in ((train_embeddings, train_labels), (test_embeddings, test_labels))
    )
    return Outcome(train_embeddings, train_labels, test_embeddings, test_labels, *accuracies, rate)


def classify(
    rule: str, embeddings: np.ndarray, weights: dict[str, np.ndarray], means: np.ndarray
) -> np.ndarray:
    """Return the class of each embedding by the rule that the loss trains for.

    Parameters
    ----------
    rule
        "product" (with the class weights, and bias), "cosine" (to the class weights, the best of a
        class that has several), "distance" (to the class weights), "mean cosine" (to the mean
        directions of the training set).
    embeddings, weights, means
        (N, 2), the parameters of the head by name, (10, 2).
    """
    if rule == "product":
        scores = embeddings @ weights["weight"].T + weights.get("bias", 0.0)
    elif rule == "cosine":
        cosines = embeddings @ _unit(weights["weight"]).T
        scores = cosines.reshape(len(embeddings), CLASSES, -1).max(axis=2)
    elif rule == "distance":
        apart = embeddings[:, None] - weights["weight"][None]
        scores = -(apart**2).sum(axis=2)
    else:
        scores = embeddings @ means.T
    return scores.argmax(axis=1)


def _means(rule: str, embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    unit = _unit(embeddings)
    return _unit(np.stack([unit[labels == n].mean(axis=0) for n in range(CLASSES)]))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True) + 1e-10)


def _spread_centres(head: gluon.Block, length: float) -> None:
    """Lay the class centres evenly around a circle.

    In the plane a class cannot pass another on the circle: where the centres happen to begin
    decides how much room each digit gets and beside whom.  In more dimensions it does not.
    """
    per_class = head.weight.shape[0] // CLASSES
    angle = 2 * np.pi * np.argsort(AROUND) / CLASSES
    angle = np.repeat(angle, per_class) + 0.1 * np.tile(np.arange(per_class), CLASSES)
    head.weight.set_data(mx.nd.array(length * np.stack([np.cos(angle), np.sin(angle)], axis=1)))


def _shuffled_batches(
    labels: np.ndarray, batch: int, end: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    rows = np.empty(0, np.int64)
    for _ in range(end // batch):
        while len(rows) < batch:
            rows = np.concatenate([rows, random.permutation(len(labels))])
        yield rows[:batch]
        rows = rows[batch:]


def _person_batches(
    labels: np.ndarray, batch: int, end: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield batches with equally many images of each digit."""
    each = [
        _shuffled_batches(places, batch // CLASSES, end // CLASSES, random)
        for places in (np.flatnonzero(labels == n) for n in range(CLASSES))
    ]
    places = [np.flatnonzero(labels == n) for n in range(CLASSES)]
    for parts in zip(*each, strict=True):
        yield np.concatenate([places[n][part] for n, part in enumerate(parts)])


def shift(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return images (B, 28, 28), each moved by up to MAX_SHIFT_PIXELS; the border is black."""
    side, most = images.shape[1], MAX_SHIFT_PIXELS
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    down, right = random.integers(0, 2 * most + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right]


def _device_images(images: np.ndarray) -> mx.nd.NDArray:
    return mx.nd.array((images[:, None].astype(np.float32) - MEAN) / STD)


def _embed(net: gluon.Block, images: np.ndarray) -> np.ndarray:
    parts = [
        net(_device_images(images[start : start + EMBED_BATCH])).asnumpy()
        for start in range(0, len(images), EMBED_BATCH)
    ]
    return np.concatenate(parts)

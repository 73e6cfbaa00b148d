# SPDX-License-Identifier: Apache-2.0
"""Train a small net that turns images of digits into two-dimensional embeddings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

from heads import build_head
from nets.blocks import ConvNormPReLU
from normalization import MEAN, STD
from ops.mode_graphs import ModeGraphs
from training.schedule import learning_rate, margin_fraction
from training.step import build_optimizer, collect_parameters, train_step

if TYPE_CHECKING:
    from tools.digits import Digits
    from tools.gallery.settings import Setting

CLASSES = 10
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
MARGIN_START_FRACTION, MARGIN_RISE_FRACTION = 0.2, 0.3
"""Fraction of a run without a margin, and fraction of the run in which the margin then rises."""
CIRCLE_ORDER = (1, 8, 3, 5, 0, 6, 4, 9, 7, 2)
"""Initial order of the ten class centres on the circle; neighbouring digits look similar."""
MAX_SHIFT_PIXELS = 1
MAX_TRAIN_EMBEDDINGS = 20_000
EMBED_BATCH_SIZE = 500
LOSS_READ_STEPS = 50
"""Number of training steps after which the host reads the losses of these steps."""


class GalleryError(RuntimeError):
    """The training with one loss failed."""


class DigitNet(ModeGraphs):
    """Net with three convolutions of stride 2 and a linear layer with two outputs.

    No rectifier or batch normalisation follows the linear layer, because either layer would distort
    the geometry that the loss produces.

    Inputs
    ------
    x : (B, 1, 28, 28) float32, a batch of B normalised images

    Outputs
    -------
    (B, 2) float32, their embeddings
    """

    def __init__(self, width: int = 24, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(
                ConvNormPReLU(1, width, 5, 2, 2),
                ConvNormPReLU(width, 2 * width, 3, 2, 1),
                ConvNormPReLU(2 * width, 4 * width, 3, 2, 1),
            )
            self.embedding = nn.Dense(2, use_bias=False, in_units=4 * width * 16)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.embedding(self.body(x))


@dataclass(frozen=True)
class Outcome:
    """Results of training with one loss: accuracies, and embeddings (N, 2) of N images."""

    train_embeddings: np.ndarray
    train_labels: np.ndarray
    test_embeddings: np.ndarray
    test_labels: np.ndarray
    train_accuracy: float
    test_accuracy: float
    images_per_second: float
    """Images per second of training, without embedding."""


def train(name: str, setting: Setting, digits: Digits, epochs: float, seed: int) -> Outcome:
    """Train a net with one loss, then embed and classify training and test images.

    Raises
    ------
    GalleryError
        If the loss of a step is not finite.
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
    losses: list[mx.nd.NDArray] = []
    start = time.perf_counter()
    for step, chosen in enumerate(batches(digits.train_labels, setting.batch, end, random)):
        images = step * setting.batch
        trainer.set_learning_rate(
            learning_rate(images + 1, "cosine", setting.lr, end, warmup=round(setting.warmup * end))
        )
        margin = margin_fraction(
            images, round(MARGIN_START_FRACTION * end), round(MARGIN_RISE_FRACTION * end)
        )
        loss, _ = train_step(
            net,
            head,
            trainer,
            _device_images(shift(digits.train_images[chosen], random)),
            mx.nd.array(digits.train_labels[chosen]),
            mx.nd.array([margin]),
            clip_norm=setting.clip_norm,
        )
        losses.append(loss)
        if len(losses) == LOSS_READ_STEPS or images + setting.batch == end:
            _check_losses(name, losses, step + 1 - len(losses))
            losses = []
    images_per_second = end / (time.perf_counter() - start)
    shown = slice(MAX_TRAIN_EMBEDDINGS)
    train_embeddings = _embed(net, digits.train_images[shown])
    test_embeddings = _embed(net, digits.test_images)
    train_labels, test_labels = digits.train_labels[shown], digits.test_labels
    weights = {k: p.data().asnumpy() for k, p in head._collect_params_with_prefix().items()}
    means = _mean_directions(train_embeddings, train_labels)

    def accuracy(embeddings: np.ndarray, labels: np.ndarray) -> float:
        return float((classify(setting.rule, embeddings, weights, means) == labels).mean())

    return Outcome(
        train_embeddings,
        train_labels,
        test_embeddings,
        test_labels,
        train_accuracy=accuracy(train_embeddings, train_labels),
        test_accuracy=accuracy(test_embeddings, test_labels),
        images_per_second=images_per_second,
    )


def _check_losses(name: str, losses: list[mx.nd.NDArray], first_step: int) -> None:
    """Raise GalleryError if the loss of one of the given steps is not finite."""
    # Sync: reading the losses makes the host wait for all steps since the last call.
    values = mx.nd.concat(*losses, dim=0).asnumpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise GalleryError(
            f"{name}: the loss of step {first_step + bad[0]} is not finite, got {values[bad[0]]}; "
            "lower the learning rate lr of this loss in tools/gallery/settings.py"
        )


def classify(
    rule: str, embeddings: np.ndarray, weights: dict[str, np.ndarray], means: np.ndarray
) -> np.ndarray:
    """Return the predicted class of each embedding.

    Parameters
    ----------
    rule
        "product": largest sum of bias and inner product with a class weight.  "cosine": largest
        cosine to a class weight, or to one of several weights of a class.  "distance": smallest
        distance to a class weight.  "mean cosine": largest cosine to the mean direction of a class.
    embeddings
        Embeddings of N images, (N, 2).
    weights
        Parameters of the head by name.
    means
        Mean directions of the classes in the training set, (10, 2).
    """
    if rule == "product":
        scores = embeddings @ weights["weight"].T + weights.get("bias", 0.0)
    elif rule == "cosine":
        cosines = embeddings @ _unit(weights["weight"]).T
        scores = cosines.reshape(len(embeddings), CLASSES, -1).max(axis=2)
    elif rule == "distance":
        differences = embeddings[:, None] - weights["weight"][None]
        scores = -(differences**2).sum(axis=2)
    else:
        scores = embeddings @ means.T
    return scores.argmax(axis=1)


def _mean_directions(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    unit = _unit(embeddings)
    return _unit(np.stack([unit[labels == n].mean(axis=0) for n in range(CLASSES)]))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True) + 1e-10)


def _spread_centres(head: gluon.Block, length: float) -> None:
    """Place the class centres at equal distances on a circle of radius ``length``.

    In two dimensions a class centre cannot move past another class centre, so training keeps the
    initial order.  Several centres of one class start 0.1 rad apart.
    """
    per_class = head.weight.shape[0] // CLASSES
    angle = 2 * np.pi * np.argsort(CIRCLE_ORDER) / CLASSES
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
    """Yield the indices of the images of each batch, with equally many images of each digit."""
    each = [
        _shuffled_batches(places, batch // CLASSES, end // CLASSES, random)
        for places in (np.flatnonzero(labels == n) for n in range(CLASSES))
    ]
    places = [np.flatnonzero(labels == n) for n in range(CLASSES)]
    for parts in zip(*each, strict=True):
        yield np.concatenate([places[n][part] for n, part in enumerate(parts)])


def shift(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift each image (B, 28, 28) by up to MAX_SHIFT_PIXELS per axis; pad with black."""
    side, border = images.shape[1], MAX_SHIFT_PIXELS
    padded = np.pad(images, ((0, 0), (border, border), (border, border)))
    # NumPy's type stubs reject a tuple of window sides and a tuple of axes; NumPy accepts both.
    sliding_window_view: Any = np.lib.stride_tricks.sliding_window_view
    windows = sliding_window_view(padded, (side, side), axis=(1, 2))
    down, right = random.integers(0, 2 * border + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right]


def _device_images(images: np.ndarray) -> mx.nd.NDArray:
    return mx.nd.array((images[:, None].astype(np.float32) - MEAN) / STD)


def _embed(net: gluon.Block, images: np.ndarray) -> np.ndarray:
    parts = [
        net(_device_images(images[start : start + EMBED_BATCH_SIZE])).asnumpy()
        for start in range(0, len(images), EMBED_BATCH_SIZE)
    ]
    return np.concatenate(parts)

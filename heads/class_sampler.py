# SPDX-License-Identifier: Apache-2.0
"""Random samples of a shard's classes; each sample contains the classes of the current batch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class ClassSampler:
    """Sampler that draws one sorted sample of the classes of a shard in every training step.

    A sample contains every class that has an image in the batch of all ranks (a positive), and
    random other classes (negatives). A sample has ceil(rate * C) classes for C classes of the
    shard, or the number of positives if that number is larger.

    The negatives are a stratified sample: the classes without an image are divided into adjacent
    strata of nearly equal size, and one class is drawn from each stratum. One random offset then
    shifts the drawn classes cyclically. Every class without an image is therefore sampled with the
    same probability. The time of a draw is proportional to the size of the sample, not to C.

    Parameters
    ----------
    num_classes
        Number of classes C of the shard.
    rate
        Fraction of the classes in a sample, above 0 and up to 1.
    seed
        Seed of the samples; equal on all ranks.
    rank
        Number of this rank; the samples of different ranks are independent.
    """

    def __init__(self, num_classes: int, rate: float, *, seed: int, rank: int) -> None:
        self._num_classes, self._rank = num_classes, rank
        self._size = math.ceil(rate * num_classes)
        self._seed, self._draws = seed, 0

    @property
    def state(self) -> dict[str, Any]:
        """Seed and number of draws, which determine all further samples of every rank."""
        return {"seed": self._seed, "draws": self._draws}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state`, which may come from a run on more or fewer ranks."""
        self._seed, self._draws = int(state["seed"]), int(state["draws"])

    def draw(self, labels: np.ndarray) -> np.ndarray:
        """Draw the sample of the next step.

        Parameters
        ----------
        labels
            Class number of each image of all ranks, counted from the first class of the shard; an
            integer array of any shape. A number outside the range 0 to C - 1 belongs to another
            shard.

        Returns
        -------
        Sampled classes in ascending order, int32 (n,).
        """
        # Each draw makes its own generator: the state is then only two numbers, equal on all ranks.
        generator = np.random.Generator(np.random.PCG64([self._seed, self._draws, self._rank]))
        self._draws += 1
        positives = np.unique(labels[(labels >= 0) & (labels < self._num_classes)])
        others = self._num_classes - len(positives)
        count = min(max(self._size - len(positives), 0), others)
        if not count:
            return positives.astype(np.int32)
        bounds = np.arange(count + 1) * others // count
        place = bounds[:-1] + (generator.random(count) * np.diff(bounds)).astype(np.int64)
        # The strata differ in size by up to one. The random offset still makes all classes
        # equally probable.
        place = np.sort((place + generator.integers(others)) % others)
        # ``place`` counts only the classes without an image. The class number of a negative is its
        # place plus the number of positives with smaller class numbers.
        skipped = np.searchsorted(positives - np.arange(len(positives)), place, side="right")
        return np.sort(np.concatenate([positives, place + skipped])).astype(np.int32)

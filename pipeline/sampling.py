# SPDX-License-Identifier: Apache-2.0
"""Who reads what and when: pure arithmetic on (seed, epoch, image), the same on every rank.

The order of an epoch is one permutation of all N images; global batch t of G images is
``order[t * G : (t + 1) * G]`` and each rank takes its slice of that.  A position is therefore
(epoch, images consumed), and another number of ranks can go on from it without losing or doubling
an image.  The tail that fills no global batch is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Position(NamedTuple):
    """A place in the data: ``consumed`` images of ``epoch`` (by all ranks) have been used."""

    epoch: int = 0
    consumed: int = 0


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(num_images)``, int64 (N,)."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_images)


def settle(position: Position, num_images: int, global_batch_size: int) -> Position:
    """Return the position of the next whole batch: this one, or the start of the next epoch."""
    if position.consumed + global_batch_size <= num_images:
        return position
    return Position(position.epoch + 1, 0)


def advance(position: Position, global_batch_size: int) -> Position:
    """Return the position after one global batch."""
    return Position(position.epoch, position.consumed + global_batch_size)


def rank_rows(
    order: np.ndarray, consumed: int, batch_size: int, rank: int, size: int
) -> np.ndarray:
    """Return the rows that one rank reads of the next global batch, (batch_size,)."""
    batch = order[consumed : consumed + batch_size * size]
    return batch[rank * batch_size : (rank + 1) * batch_size]


def uniform(ids: np.ndarray, seed: int, epoch: int, stream: int) -> np.ndarray:
    """Return a number in [0, 1) for each image in an epoch, float64, the shape of ``ids``.

    A function of (seed, epoch, id, stream) alone, so that readers, rank counts and resumed runs
    agree: 53 bits of a 64-bit mix (the finaliser of SplitMix64; Steele, Lea and Flood, "Fast
    splittable pseudorandom number generators", OOPSLA 2014).  ``stream`` tells apart what is
    drawn for one image.
    """
    with np.errstate(over="ignore"):
        place = np.uint64(epoch) + (np.uint64(stream) << np.uint64(32))
        key = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + place)
        return (_mix(ids.astype(np.uint64) ^ key) >> np.uint64(11)) * 2.0**-53


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

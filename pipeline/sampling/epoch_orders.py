# SPDX-License-Identifier: Apache-2.0
"""Orders of epochs and positions in them: functions of (seed, epoch), equal on every rank.

The order of an epoch is one permutation of all N images.  Global batch t of G images is
``order[t * G : (t + 1) * G]``, and each rank takes its slice of that.  A position is therefore
(epoch, images consumed), and a run with another number of ranks resumes from it without losing or
repeating an image.  The tail that does not fill a global batch is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CELL_IMAGES = 1 << 16  # images shuffled at a time: they fit into the processor's cache
CHUNK_IMAGES = 1 << 17  # images processed at a time, to keep temporary arrays small
PERSON_STREAM = 1 << 16  # stream of ``uniform`` for the images of a person; augmentation uses 0..11


class Position(NamedTuple):
    """Position in the data: all ranks together have used ``consumed`` images of ``epoch``."""

    epoch: int = 0
    consumed: int = 0


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(num_images)``, int32 or int64 (N,).

    All permutations are equally likely.  Large sets are first dealt into cells at random, and then
    each cell is shuffled, because a shuffle of the whole array waits for memory at every step
    (Sandelius, "A simple randomization procedure", 1962).
    """
    generator = _generator(seed, epoch)
    cells = num_images // CELL_IMAGES + 1
    if cells == 1:
        return generator.permutation(num_images)
    # Allocated first, so that it reuses the memory of the last epoch's order.
    order = np.empty(num_images, dtype=_index_dtype(num_images))
    cell = generator.integers(0, cells, num_images, dtype=np.uint8 if cells <= 256 else np.uint16)
    ends = _deal(cell, cells, order)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        generator.shuffle(order[begin:end])
    return order


def shuffled_blocks(
    num_images: int, seed: int, epoch: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of an epoch's blocks: first image and number of images of each, int64.

    Every block has ``block`` images, except the one at the end of the set.
    """
    firsts = _generator(seed, epoch).permutation(-(-num_images // block)) * block
    return firsts, np.minimum(block, num_images - firsts)


def block_order(num_images: int, seed: int, epoch: int, block: int, window: int) -> np.ndarray:
    """Return an epoch's order for sequential disks: a permutation, int32 or int64 (N,).

    Blocks of ``block`` consecutive images come in random order; then each ``window`` images of that
    sequence are shuffled.  So an image moves at most ``window`` places away from its block.
    """
    order = np.empty(num_images, dtype=_index_dtype(num_images))
    firsts, _ = shuffled_blocks(num_images, seed, epoch, block)
    filled, chunk_blocks = 0, -(-CHUNK_IMAGES // block)
    for begin in range(0, len(firsts), chunk_blocks):
        rows = (firsts[begin : begin + chunk_blocks, None] + np.arange(block)).reshape(-1)
        rows = rows[rows < num_images]  # the block at the end of the set may have fewer images
        order[filled : filled + len(rows)] = rows
        filled += len(rows)
    generator = _generator(seed, epoch, stream=1)
    for begin in range(0, num_images, window):
        generator.shuffle(order[begin : begin + window])
    return order


def people_order(counts: np.ndarray, seed: int, epoch: int, images_per_person: int) -> np.ndarray:
    """Return an epoch's order as groups of images of one person each, flat, int64.

    Every person has one group, in random order.  A person's images are shuffled into a cycle, and
    the groups of one epoch after the other take the next images of the cycle.  When a group ends
    where the cycle ends, the images are shuffled again.  So a group repeats an image only if the
    person has too few, and no image is used more than once more often than another of the person.

    Parameters
    ----------
    counts
        Number of images of each person (people,), at least 1; images are numbered by person.
    """
    rounds = counts // np.gcd(counts, images_per_person)  # epochs between two shuffles
    shuffles, within = np.divmod(epoch, rounds)
    person = np.repeat(np.arange(len(counts)), counts)
    drawn = uniform(np.arange(len(person)), seed, shuffles[person], PERSON_STREAM)
    shuffled = np.argsort(person + drawn)  # images shuffled within each person
    first = np.cumsum(counts) - counts
    place = (within * images_per_person)[:, None] + np.arange(images_per_person)
    groups = shuffled[first[:, None] + place % counts[:, None]]
    return groups[epoch_order(len(counts), seed, epoch)].reshape(-1)


def skip_tail(position: Position, num_images: int, global_batch_size: int) -> Position:
    """Return the position of the next full batch: this one, or the start of the next epoch."""
    if position.consumed + global_batch_size <= num_images:
        return position
    return Position(position.epoch + 1, 0)


def rank_rows(
    order: np.ndarray, consumed: int, batch_size: int, rank: int, size: int
) -> np.ndarray:
    """Return one rank's rows of the global batch after ``consumed`` images, int64 (batch_size,)."""
    batch = order[consumed : consumed + batch_size * size]
    return batch[rank * batch_size : (rank + 1) * batch_size].astype(np.int64)


def uniform(ids: np.ndarray, seed: int, epoch: int | np.ndarray, stream: int) -> np.ndarray:
    """Return a random number in [0, 1) for each image, float64, the shape of ``ids``.

    It depends on (seed, epoch, id, stream) alone, so readers, numbers of ranks and resumed runs
    agree.  It is 53 bits of a 64-bit hash (the finaliser of SplitMix64; Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014).  ``stream`` separates the
    numbers of one image; ``epoch`` may be an array with an epoch per id.
    """
    with np.errstate(over="ignore"):
        place = np.asarray(epoch).astype(np.uint64) + (np.uint64(stream) << np.uint64(32))
        key = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + place)
        return (_mix(ids.astype(np.uint64) ^ key) >> np.uint64(11)) * 2.0**-53


def _generator(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]))


def _index_dtype(num_images: int) -> type[np.signedinteger[Any]]:
    return np.int32 if num_images < 2**31 else np.int64


def _deal(cell: np.ndarray, cells: int, order: np.ndarray) -> np.ndarray:
    """Fill ``order`` with the stable argsort of ``cell``; return the end of each cell (cells,).

    It works in chunks: ``np.argsort`` of the whole array would need 8 bytes per image.
    """
    chunks = [slice(begin, begin + CHUNK_IMAGES) for begin in range(0, len(cell), CHUNK_IMAGES)]
    totals = np.sum([np.bincount(cell[chunk], minlength=cells) for chunk in chunks], axis=0)
    ends = np.cumsum(totals)
    free = ends - totals  # index in ``order`` of the next image of each cell
    for chunk in chunks:
        dealt = np.argsort(cell[chunk], kind="stable")
        counts = np.bincount(cell[chunk], minlength=cells)
        before = np.cumsum(counts) - counts
        order[np.repeat(free - before, counts) + np.arange(len(dealt))] = dealt + chunk.start
        free += counts
    return ends


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

# SPDX-License-Identifier: Apache-2.0
"""Compute the order of the images in an epoch, and the next position in that order.

The order of an epoch is a function of (seed, epoch): one permutation of all N images.  Global batch
t of G images is ``order[t * G : (t + 1) * G]``, and each rank reads its slice of the global batch.
So a position is a pair (epoch, number of images consumed).  A run with another number of ranks
resumes from a position without losing or repeating an image.  The tail of the order that does not
fill a global batch is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CELL_IMAGES = 1 << 16  # number of images shuffled at a time, whose indices fit into the CPU cache
CHUNK_IMAGES = 1 << 17  # number of images processed at a time, to keep temporary arrays small
# Number of the random stream (argument ``stream`` of ``uniform``) that shuffles the images of a
# person.  The augmentation uses the streams 0 to 11.
PERSON_STREAM = 1 << 16


class Position(NamedTuple):
    """Position in the data: an epoch, and how many of its images all ranks together have used."""

    epoch: int = 0
    consumed: int = 0


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(num_images)``, int32 or int64 (N,).

    All permutations are equally likely.  The images of a large set are first dealt into cells at
    random, and then each cell is shuffled.  A shuffle of the complete array would be slower,
    because every step would wait for memory (Sandelius, "A simple randomization procedure", 1962).
    """
    generator = _generator(seed, epoch)
    cells = num_images // CELL_IMAGES + 1
    if cells == 1:
        return generator.permutation(num_images)
    # Allocate the order before other arrays, so that it reuses the memory of the previous order.
    order = np.empty(num_images, dtype=_index_dtype(num_images))
    cell = generator.integers(0, cells, num_images, dtype=np.uint8 if cells <= 256 else np.uint16)
    ends = _deal(cell, cells, order)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        generator.shuffle(order[begin:end])
    return order


def shuffled_blocks(
    num_images: int, seed: int, epoch: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks of an epoch in random order, as two int64 arrays with one entry per block.

    The arrays hold the first image and the number of images of each block.  Every block has
    ``block`` images, except the last block of the set, which may have fewer.
    """
    firsts = _generator(seed, epoch).permutation(-(-num_images // block)) * block
    return firsts, np.minimum(block, num_images - firsts)


def block_order(num_images: int, seed: int, epoch: int, block: int, window: int) -> np.ndarray:
    """Return an epoch's order for disks with slow seeks: a permutation, int32 or int64 (N,).

    Blocks of ``block`` consecutive images come in random order.  Then each run of ``window`` images
    in that sequence is shuffled, which moves an image by less than ``window`` places.
    """
    order = np.empty(num_images, dtype=_index_dtype(num_images))
    firsts, _ = shuffled_blocks(num_images, seed, epoch, block)
    filled, chunk_blocks = 0, -(-CHUNK_IMAGES // block)
    for begin in range(0, len(firsts), chunk_blocks):
        rows = (firsts[begin : begin + chunk_blocks, None] + np.arange(block)).reshape(-1)
        rows = rows[rows < num_images]  # the last block of the set may have fewer images
        order[filled : filled + len(rows)] = rows
        filled += len(rows)
    generator = _generator(seed, epoch, stream=1)
    for begin in range(0, num_images, window):
        generator.shuffle(order[begin : begin + window])
    return order


def people_order(counts: np.ndarray, seed: int, epoch: int, images_per_person: int) -> np.ndarray:
    """Return the order of an epoch in groups of images of one person, as a flat int64 array.

    Every person has one group, and the groups come in random order.  The images of a person are
    shuffled into a cycle.  In each epoch, the person's group takes the next images of the cycle.
    When a group ends exactly where the cycle ends, the images are shuffled again.  So a group
    repeats an image only if the person has fewer images than the group needs, and the numbers of
    uses of two images of one person never differ by more than one.

    Parameters
    ----------
    counts
        Number of images of each person, at least 1, shape (number of people,).  Images are numbered
        person by person.
    """
    rounds = counts // np.gcd(counts, images_per_person)  # number of epochs between two shuffles
    shuffles, within = np.divmod(epoch, rounds)
    person = np.repeat(np.arange(len(counts)), counts)
    drawn = uniform(np.arange(len(person)), seed, shuffles[person], PERSON_STREAM)
    shuffled = np.argsort(person + drawn)  # all images, shuffled within each person
    first = np.cumsum(counts) - counts
    place = (within * images_per_person)[:, None] + np.arange(images_per_person)
    groups = shuffled[first[:, None] + place % counts[:, None]]
    return groups[epoch_order(len(counts), seed, epoch)].reshape(-1)


def skip_tail(position: Position, num_images: int, global_batch_size: int) -> Position:
    """Return the position of the next full global batch.

    The result is ``position`` itself, or the start of the next epoch if too few images remain.
    """
    if position.consumed + global_batch_size <= num_images:
        return position
    return Position(position.epoch + 1, 0)


def rank_rows(
    order: np.ndarray, consumed: int, batch_size: int, rank: int, size: int
) -> np.ndarray:
    """Return the rows of one rank in the global batch that begins after ``consumed`` images.

    The result is int64 (batch_size,); ``size`` is the number of ranks.
    """
    batch = order[consumed : consumed + batch_size * size]
    return batch[rank * batch_size : (rank + 1) * batch_size].astype(np.int64)


def uniform(ids: np.ndarray, seed: int, epoch: int | np.ndarray, stream: int) -> np.ndarray:
    """Return a random number in [0, 1) for each image id, as float64 with the shape of ``ids``.

    The number depends only on (seed, epoch, id, stream), so it is the same for every reader, for
    any number of ranks and after a resume.  It consists of 53 bits of a 64-bit hash (the finaliser
    of SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014).  Different values of ``stream`` give one image independent numbers.  ``epoch`` may be an
    array with one epoch per id.
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
    """Deal the images into cells: fill ``order`` with the stable argsort of ``cell``.

    ``cell`` holds the cell number of each image.  Return the index in ``order`` at which each cell
    ends, (cells,).  The sort works in chunks, because ``np.argsort`` of the complete array would
    need 8 bytes per image.
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

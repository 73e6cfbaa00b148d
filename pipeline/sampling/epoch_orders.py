# SPDX-License-Identifier: Apache-2.0
"""Who reads what and when: pure arithmetic on (seed, epoch, image), the same on every rank.

The order of an epoch is one permutation of all N images; global batch t of G images is
``order[t * G : (t + 1) * G]`` and each rank takes its slice of that.  A position is therefore
(epoch, images consumed), and another number of ranks can resume from it without losing or doubling
an image.  The tail that fills no global batch is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CELL = 1 << 16  # places that are shuffled in one go: they stay in the processor's cache
PIECE = 1 << 17  # images that are dealt in one go: what that takes beside the order is small
OF_PERSON = 1 << 16  # stream of `uniform` for the images of a person; augmentation's are below


class Position(NamedTuple):
    """A place in the data: ``consumed`` images of ``epoch`` (by all ranks) have been used."""

    epoch: int = 0
    consumed: int = 0


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(num_images)``, int32 or int64 (N,).

    Every order is as likely as every other.  Large sets are dealt into cells at random first, and
    each cell is shuffled: a shuffle of the whole waits for memory at every step (Sandelius, "A
    simple randomization procedure", 1962).
    """
    generator = _generator(seed, epoch)
    cells = num_images // CELL + 1
    if cells == 1:
        return generator.permutation(num_images)
    # Before all else, so that it finds the place of the order before it: a run keeps freed memory.
    order = np.empty(num_images, dtype=_place(num_images))
    cell = generator.integers(0, cells, num_images, dtype=np.uint8 if cells <= 256 else np.uint16)
    ends = _deal(cell, cells, order)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        generator.shuffle(order[begin:end])
    return order


def shuffled_blocks(
    num_images: int, seed: int, epoch: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of an epoch's blocks: (first place, images) of each, int64.

    All hold ``block`` images but the one at the end of the set.
    """
    firsts = _generator(seed, epoch).permutation(-(-num_images // block)) * block
    return firsts, np.minimum(block, num_images - firsts)


def block_order(num_images: int, seed: int, epoch: int, block: int, window: int) -> np.ndarray:
    """Return the order of an epoch that a disk can follow: a permutation, int32 or int64 (N,).

    Blocks of consecutive images are shuffled; of what they hold one after the other, each
    ``window`` images are shuffled again.  An image so comes at most ``window`` places before or
    after its block does.
    """
    order = np.empty(num_images, dtype=_place(num_images))
    firsts, _ = shuffled_blocks(num_images, seed, epoch, block)
    filled, together = 0, -(-PIECE // block)
    for begin in range(0, len(firsts), together):
        rows = (firsts[begin : begin + together, None] + np.arange(block)).reshape(-1)
        rows = rows[rows < num_images]  # the last block may hold fewer
        order[filled : filled + len(rows)] = rows
        filled += len(rows)
    generator = _generator(seed, epoch, stream=1)
    for begin in range(0, num_images, window):
        generator.shuffle(order[begin : begin + window])
    return order


def people_order(counts: np.ndarray, seed: int, epoch: int, images_per_person: int) -> np.ndarray:
    """Return the order of an epoch in groups of images of one person each, int64, flat.

    Every person comes once, in random order, with that many images.  A person's images are
    shuffled and gone through in a circle, group after group and epoch after epoch; they are
    shuffled again where a group ends with the circle.  So no group has an image twice that need
    not, and none of a person's images is ever used more than once more often than another.

    Parameters
    ----------
    counts
        Images of each person (people,), each at least 1; images are numbered person by person.
    """
    rounds = counts // np.gcd(counts, images_per_person)  # epochs until the circle is closed
    turn, within = np.divmod(epoch, rounds)
    person = np.repeat(np.arange(len(counts)), counts)
    drawn = uniform(np.arange(len(person)), seed, turn[person], OF_PERSON)
    shuffled = np.argsort(person + drawn)  # each person's images, in the place of that person's
    first = np.cumsum(counts) - counts
    place = (within * images_per_person)[:, None] + np.arange(images_per_person)
    groups = shuffled[first[:, None] + place % counts[:, None]]
    return groups[epoch_order(len(counts), seed, epoch)].reshape(-1)


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
    """Return the rows that one rank reads of the next global batch, int64 (batch_size,)."""
    batch = order[consumed : consumed + batch_size * size]
    return batch[rank * batch_size : (rank + 1) * batch_size].astype(np.int64)


def uniform(ids: np.ndarray, seed: int, epoch: int | np.ndarray, stream: int) -> np.ndarray:
    """Return a number in [0, 1) for each image in an epoch, float64, the shape of ``ids``.

    A function of (seed, epoch, id, stream) alone, so that readers, rank counts and resumed runs
    agree: 53 bits of a 64-bit mix (the finaliser of SplitMix64; Steele, Lea and Flood, "Fast
    splittable pseudorandom number generators", OOPSLA 2014).  ``stream`` tells apart what is
    drawn for one image.  Each id may have an epoch of its own.
    """
    with np.errstate(over="ignore"):
        place = np.asarray(epoch).astype(np.uint64) + (np.uint64(stream) << np.uint64(32))
        key = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + place)
        return (_mix(ids.astype(np.uint64) ^ key) >> np.uint64(11)) * 2.0**-53


def _generator(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]))


def _place(num_images: int) -> type[np.signedinteger[Any]]:
    return np.int32 if num_images < 2**31 else np.int64


def _deal(cell: np.ndarray, cells: int, order: np.ndarray) -> np.ndarray:
    """Fill ``order`` with places, cell after cell, rising in each; return the ends (cells,).

    As ``order[:] = np.argsort(cell, kind="stable")``, in pieces: that needs 8 bytes per image.
    """
    pieces = [slice(begin, begin + PIECE) for begin in range(0, len(cell), PIECE)]
    counts = np.zeros(cells, dtype=np.int64)
    for piece in pieces:
        counts += np.bincount(cell[piece], minlength=cells)
    ends = np.cumsum(counts)
    free = ends - counts  # of each cell, where the next image goes
    for piece in pieces:
        dealt = np.argsort(cell[piece], kind="stable")
        counts = np.bincount(cell[piece], minlength=cells)
        before = np.cumsum(counts) - counts
        to = np.repeat(free - before, counts) + np.arange(len(dealt))
        order[to] = dealt + piece.start
        free += counts
    return ends


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

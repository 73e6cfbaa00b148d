# SPDX-License-Identifier: Apache-2.0
"""Plan how images are packed: choose the held-out identities, and divide the images into pieces.

The pieces, and with them the bytes of the set, depend only on the images and the options, and not
on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alignment.plan import AlignmentPlan
from pipeline.records.writer import MAX_KEYS

if TYPE_CHECKING:
    from tools.data.image_fitting import ImageFormat
    from tools.data.image_sources import ImageSources

TRAIN, HELD = "train", "held"
_PIECE_IMAGES, _PIECE_BYTES = 512, 8 << 20
_PLAN_VERSION = 1
_SEED = 1


class PackOptions(NamedTuple):
    """Options on which the bytes of the set depend."""

    format: ImageFormat
    val_people: int = 0
    """Number of identities that are held out."""
    val_pairs: int = 1000
    """Number of verification pairs of the held-out identities."""


class PackAlignment(NamedTuple):
    """Plan of the alignment, and the settings that identify this plan."""

    plan: AlignmentPlan
    settings: dict[str, Any]
    """JSON values; plans with equal values align a photograph to the same image."""


NO_ALIGNMENT = PackAlignment(AlignmentPlan(), {})


class PackPlan(NamedTuple):
    """Images to pack, and the pieces into which the work is divided."""

    sources: ImageSources
    options: PackOptions
    alignment: PackAlignment
    order: np.ndarray
    """Index of each image in ``sources``, in the order of packing, int64 (N,)."""
    pieces: list[tuple[str, int, int]]
    """For each piece, its part (TRAIN or HELD) and the bounds of its rows in ``order``."""
    held: list[int]
    """Held-out identities as indices in ``sources.names``, ascending."""
    digest: str
    """Text that identifies the images and the options."""


def make_plan(
    sources: ImageSources, options: PackOptions, alignment: PackAlignment = NO_ALIGNMENT
) -> PackPlan:
    """Choose the held-out identities, and divide the work into pieces.

    Raises
    ------
    ValueError
        If there are too few identities to hold out, or too many images for one set.
    """
    if len(sources) + len(sources.names) >= MAX_KEYS:
        raise ValueError(
            f"{sources.root}: images and identities must together be fewer than {MAX_KEYS}, got "
            f"{len(sources)} images of {len(sources.names)} identities; pack several sets and list "
            "them in data.records"
        )
    held = choose_held(sources.identities, options.val_people)
    is_held = np.isin(sources.identities, held)
    order = np.concatenate([np.flatnonzero(~is_held), np.flatnonzero(is_held)])
    parts = ((TRAIN, 0, int((~is_held).sum())), (HELD, int((~is_held).sum()), len(order)))
    pieces = [
        (name, a, b)
        for name, start, end in parts
        for a, b in divide(sources.sizes[order[start:end]], start)
    ]
    digest = _digest(sources, options, alignment)
    return PackPlan(sources, options, alignment, order, pieces, held.tolist(), digest)


def choose_held(identities: np.ndarray, count: int) -> np.ndarray:
    """Choose ``count`` identities at random, each with at least two images; return them sorted."""
    people, images = np.unique(identities, return_counts=True)
    several = people[images > 1]
    if count and (count < 2 or count > len(several) or count >= len(people)):
        raise ValueError(
            f"--val-people: must be at least 2, at most the number of identities with several "
            f"images ({len(several)}) and less than the number of all identities ({len(people)}), "
            f"got {count}; choose another number"
        )
    return np.sort(np.random.default_rng(_SEED).permutation(several)[:count])


def divide(sizes: np.ndarray, first: int) -> list[tuple[int, int]]:
    """Divide images into pieces; return the rows of each piece as (start, stop).

    A piece has at most _PIECE_IMAGES images.  The files of a piece of several images have at most
    _PIECE_BYTES bytes together.

    ``sizes`` are the sizes of the files in bytes, int64 (n,), and ``first`` is the row of the first
    file.
    """
    ends, bounds, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _PIECE_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + _PIECE_IMAGES)
        bounds.append((first + start, first + stop))
        start = stop
    return bounds


def _digest(sources: ImageSources, options: PackOptions, alignment: PackAlignment) -> str:
    digest = hashlib.sha256(repr((_PLAN_VERSION, options)).encode())
    digest.update(json.dumps([sources.names, sources.rejected]).encode())
    for path in sources.paths:
        digest.update(os.fsencode(path) + b"\0")
    for column in (sources.identities, sources.sizes, sources.mtimes_ns):
        digest.update(column.astype("<i8").tobytes())
    if sources.unaligned is not None:
        digest.update(json.dumps(alignment.settings).encode() + sources.unaligned.tobytes())
        if sources.points is not None:
            digest.update(sources.points.astype("<f4").tobytes())
    return digest.hexdigest()[:32]

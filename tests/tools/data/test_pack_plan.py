# SPDX-License-Identifier: Apache-2.0
"""Pieces of a pack, held-out identities, and what makes two packs the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignment.plan import AlignmentPlan
from tools.data.image_fitting import ImageFormat
from tools.data.image_sources import ImageSources
from tools.data.pack_plan import (
    HELD,
    TRAIN,
    PackAlignment,
    PackOptions,
    choose_held,
    divide,
    make_plan,
)

COUNTS = np.array([3, 1, 4, 2])


def sources(**values) -> ImageSources:
    count = int(COUNTS.sum())
    given = {
        "root": Path("in"),
        "names": list("abcd"),
        "paths": [f"{row}.jpg" for row in range(count)],
        "identities": np.repeat(np.arange(4), COUNTS),
        "sizes": np.full(count, 5000),
        "mtimes_ns": np.zeros(count, np.int64),
    }
    return ImageSources(**{**given, **values})


def test_pieces_have_a_limited_number_and_size_and_at_least_one_image():
    assert divide(np.full(1025, 10), 7) == [(7, 519), (519, 1031), (1031, 1032)]
    assert divide(np.array([1, 9 << 20, 1, 4 << 20, 4 << 20]), 0) == [
        (0, 1),
        (1, 2),
        (2, 4),
        (4, 5),
    ]
    assert divide(np.array([], np.int64), 0) == []


def test_held_out_identities_have_several_images_and_come_last():
    identities = sources().identities
    assert set(choose_held(identities, 2)) <= {0, 2, 3}
    plan = make_plan(sources(), PackOptions(ImageFormat(112, 112), val_people=2))
    assert [part for part, _, _ in plan.pieces] == [TRAIN, HELD]
    start = plan.pieces[1][1]
    assert sorted({*identities[plan.order[start:]]}) == plan.held
    for count in (1, 4):
        with pytest.raises(ValueError, match=f"--val-people: must be at least 2, .* got {count};"):
            choose_held(identities, count)


def test_the_digest_depends_on_images_options_and_alignment():
    options = PackOptions(ImageFormat(112, 112))
    unaligned = np.arange(10) % 2 == 0
    points = np.zeros((10, 5, 2), np.float32)
    settings = {"points": "list", "min_face_px": 24.0}
    other = {**settings, "min_face_px": 25.0}

    def digest(settings=None, **values):
        alignment = PackAlignment(AlignmentPlan(), settings or {})
        return make_plan(sources(**values), options, alignment).digest

    assert digest() == digest(settings)  # without an image to align, the settings do not matter
    found = [
        digest(),
        digest(sizes=np.full(10, 5001)),
        digest(unaligned=unaligned),
        digest(settings, unaligned=unaligned),
        digest(other, unaligned=unaligned),
        digest(settings, unaligned=~unaligned),
        digest(settings, unaligned=unaligned, points=points),
        digest(settings, unaligned=unaligned, points=points + 1),
    ]
    assert len(set(found)) == len(found)

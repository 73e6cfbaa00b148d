# SPDX-License-Identifier: Apache-2.0
"""Class numbers: joined labels of several sets, and people dropped by their number of images."""

from __future__ import annotations

import numpy as np

from pipeline.records.classes import SHARED, make_origins, renumber, stack

A = np.array([0, 0, 2, 2, 2], dtype=np.int32)
B = np.array([1, 0, 0], dtype=np.int32)


def test_classes_of_the_second_set_follow_those_of_the_first():
    labels, num_classes, origins = stack([A, B, A], [4, 2, 3])
    assert labels.tolist() == [0, 0, 2, 2, 2, 5, 4, 4, 6, 6, 8, 8, 8]
    assert labels.dtype == np.int32 and num_classes == 9
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert [tuple(origin) for origin in origins.tolist()] == places


def test_people_with_few_images_are_dropped_and_the_others_renumbered():
    labels = np.array([5, 1, 1, 0, 5, 3, 5, 1], dtype=np.int32)
    rows, new, kept = renumber(labels, 7, 2)
    assert kept.tolist() == [1, 5]
    assert rows.tolist() == [0, 1, 2, 4, 6, 7]
    assert new.tolist() == [1, 0, 0, 1, 1, 0]
    assert (kept[new] == labels[rows]).all()
    rows, new, kept = renumber(labels, 7, 1)  # drops people without images
    assert kept.tolist() == [0, 1, 3, 5] and len(rows) == len(labels)
    rows, new, kept = renumber(labels, 7, 4)
    assert not len(rows) and not len(new) and not len(kept)


def test_origins_are_set_index_and_label():
    assert make_origins(3, np.arange(2)).tolist() == [[3, 0], [3, 1]]
    assert make_origins(SHARED, np.array([7])).tolist() == [[-1, 7]]

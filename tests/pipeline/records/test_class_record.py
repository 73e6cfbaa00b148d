# SPDX-License-Identifier: Apache-2.0
"""Classes are found again by record set and label: sets added, reordered, filtered, shared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.records.class_record import describe_classes, fingerprint, match_classes
from pipeline.records.open import open_records


@pytest.fixture(scope="module")
def folders(make_records):
    """Return three record sets; the first and the last have equal numbers of images per person."""
    from tests.conftest import faces

    other = [(label, jpeg) for label, jpeg in faces(14, 3) if label >= 10]
    samples = [(label - 10, jpeg) for label, jpeg in other]
    return [make_records(4, 3), make_records(3, 5), make_records(4, 3, samples=samples)]


@pytest.fixture
def describe(folders, tmp_path):
    """Return ``describe(*indices, **options)``: the record of these sets, after a trip to JSON."""

    def open_and_describe(*indices, **options):
        records = open_records([folders[i] for i in indices], tmp_path, **options)
        return json.loads(json.dumps(describe_classes(records)))

    return open_and_describe


def pairs(old, new):
    own, source = match_classes(old, new)
    assert own.dtype == source.dtype == np.int64
    return dict(zip(own.tolist(), source.tolist(), strict=True))


def test_the_record_has_one_row_per_run_of_labels(describe):
    assert describe(0)["runs"] == [[0, 0, 0, 4]]
    assert describe(0, 1)["runs"] == [[0, 0, 0, 4], [4, 1, 0, 3]]
    assert describe(0, 1, labels="shared")["runs"] == [[0, -1, 0, 4]]
    filtered = describe(0, 1, images_filter=4)
    assert filtered["runs"] == [[0, 1, 0, 3]] and filtered["num_classes"] == 3
    assert len(describe(0, 1)["sets"]) == 2


def test_sets_with_equal_labels_and_other_images_differ(describe):
    assert describe(0)["sets"] != describe(2)["sets"]
    assert pairs(describe(0), describe(2)) == {}


def test_added_and_reordered_sets_keep_their_classes(describe):
    assert pairs(describe(0), describe(0)) == {i: i for i in range(4)}
    assert pairs(describe(0), describe(1, 0)) == {3: 0, 4: 1, 5: 2, 6: 3}
    assert pairs(describe(0, 1), describe(1, 2, 0)) == {
        **{0: 4, 1: 5, 2: 6},
        **{7: 0, 8: 1, 9: 2, 10: 3},
    }
    assert pairs(describe(1, 0), describe(0)) == {0: 3, 1: 4, 2: 5, 3: 6}


def test_a_filter_keeps_the_remaining_classes(describe):
    assert pairs(describe(0, 1), describe(0, 1, images_filter=4)) == {0: 4, 1: 5, 2: 6}
    assert pairs(describe(0, 1, images_filter=4), describe(0, 1)) == {4: 0, 5: 1, 6: 2}


def test_shared_labels_match_through_any_common_set(describe):
    both = describe(0, 1, labels="shared")
    assert pairs(both, describe(1, 0, labels="shared")) == {i: i for i in range(4)}
    assert pairs(describe(0), both) == {i: i for i in range(4)}
    assert pairs(both, describe(0, 2)) == {i: i for i in range(4)}
    assert pairs(both, describe(2)) == {}


def test_classes_outside_the_runs_of_a_record_match_nothing():
    short = {"num_classes": 5, "sets": ["a"], "runs": [[0, 0, 0, 2]]}
    whole = {"num_classes": 5, "sets": ["a"], "runs": [[0, 0, 0, 5]]}
    assert pairs(short, whole) == {0: 0, 1: 1}
    assert pairs(whole, {**short, "runs": [[3, 0, 4, 9]]}) == {3: 4}
    assert pairs({"num_classes": 5, "sets": [], "runs": []}, whole) == {}


def test_the_fingerprint_depends_on_labels_and_offsets_not_on_their_types():
    labels, offsets = np.arange(200_000) // 7, np.arange(200_000) * 5000
    name = fingerprint(labels, offsets)
    assert name == fingerprint(labels.astype(np.int32), offsets.astype(np.int64))
    changed = labels.copy()
    changed[123_457] += 1
    assert name not in (fingerprint(changed, offsets), fingerprint(labels, offsets + 8))
    assert name != fingerprint(labels[:-1], offsets[:-1])

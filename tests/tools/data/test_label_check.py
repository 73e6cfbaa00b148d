# SPDX-License-Identifier: Apache-2.0
"""Labels against identity records: the label of most images counts."""

from __future__ import annotations

import struct
from collections.abc import Container
from pathlib import Path

import pytest

from pipeline.records.recordio import RecordFile, find_files, map_rec, read_headers, read_index
from pipeline.records.writer import write_record_set
from tools.data.findings import Findings
from tools.data.label_check import check_labels, find_images

JPEG = b"\xff\xd8\xff\xd9"


def check(
    folder: Path,
    labels: dict[int, float],
    num_classes: int = 3,
    listed: Container[int] = range(17),
) -> list[tuple[str, int]]:
    """Change the labels of some keys in a set of 3 people with 4 images; return the findings.

    The .idx lists only the keys in ``listed``.
    """
    write_record_set(folder, [(p, JPEG) for p in range(3) for _ in range(4)], 3)
    rec, idx = find_files(folder)
    lines = idx.read_text().splitlines(keepends=True)
    idx.write_text("".join(line for line in lines if int(line.split()[0]) in listed))
    keys, offsets = read_index(idx)
    with rec.open("r+b") as out:
        for key, label in labels.items():
            out.seek(int(offsets[keys == key][0]) + 12)
            out.write(struct.pack("<f", label))
    file = RecordFile(rec, idx, map_rec(rec), keys, offsets)
    headers, findings = read_headers(file.data, offsets), Findings()
    check_labels(file, headers, find_images(file, headers), num_classes, findings)
    return [(finding.kind, finding.key) for finding in findings.listed()]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, []),
        ({6: 2.0}, [("label", 6)]),
        ({5: 2.0}, [("label", 5)]),  # the first image of the identity
        ({5: 2.0, 6: 2.0}, [("label", 5), ("label", 6)]),  # a tie: the record's number wins
        ({6: 3.0}, [("label_range", 6)]),
        ({6: -1.0, 7: float("inf"), 8: 0.5}, [("label_range", 6), ("label_range", 7),
                                              ("label_range", 8)]),
        ({5: 0.0, 6: 0.0, 7: 0.0}, [("label", 8), ("identity_record", 14)]),
        ({5: 9.0, 6: 9.0, 7: 9.0, 8: 9.0}, [("label_range", key) for key in range(5, 9)]),
    ],
)  # fmt: skip
def test_labels_that_differ_from_most_images_of_the_identity_are_found(tmp_path, labels, expected):
    assert check(tmp_path, labels) == expected


def test_without_a_number_of_classes_any_whole_number_is_in_range(tmp_path):
    assert check(tmp_path, {5: 900.0, 6: 900.0, 7: 900.0, 8: 900.0}, num_classes=0) == []


def test_identity_records_that_contain_no_listed_image_are_checked(tmp_path):
    found = check(tmp_path, {}, listed=(0, 9, 10, 11, 12, 13))  # record 13 lists the keys 1 to 4
    assert [(kind, key) for kind, key in found if kind == "label"] == [
        ("label", key) for key in range(9, 13)
    ]

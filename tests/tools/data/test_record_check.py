# SPDX-License-Identifier: Apache-2.0
"""The check of a record set finds the planted faults and nothing else."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from pipeline.records.mapped import RecordError
from pipeline.records.open import open_records
from pipeline.records.writer import MAGIC, write_record_set
from tests.tools.data.planted_faults import SIZE, face, jpeg, plant
from tools.data.findings import KINDS
from tools.data.record_check import CheckedSet, check_set


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return the folder of a set with 200 faults, and the expected findings."""
    folder = tmp_path_factory.mktemp("planted")
    return folder, plant(folder)


@pytest.fixture(params=["compiled", "opencv"])
def decoder(request, monkeypatch):
    """Check once with the compiled decoder, once as on a machine without a compiler."""
    if request.param == "opencv":
        monkeypatch.setattr(ops, "compiled", lambda: None)
        monkeypatch.setattr(ops, "guard", lambda: None)
    elif ops.compiled() is None:
        pytest.fail("the operators are not compiled")


def found(checked: CheckedSet) -> set[tuple[str, int]]:
    pairs = set()
    for kind, key, text in checked.findings.listed():
        line = re.search(r"line (\d+)", text)
        pairs.add((kind, -int(line[1]) if key is None and line else key))
    assert len(pairs) == len(checked.findings)
    return pairs


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def small_set(folder: Path, people: int = 4, shots: int = 3, **options) -> Path:
    samples = [(p, jpeg(face(p, shot))) for p in range(people) for shot in range(shots)]
    write_record_set(folder, samples, people, image_size=SIZE, **options)
    return folder


def test_all_planted_faults_are_found_and_nothing_else(planted, decoder):
    folder, expected = planted
    assert found(check_set(folder, threads=2)) == expected and len(expected) == 200


def test_the_clean_index_lists_the_images_without_these_faults(planted):
    folder, expected = planted
    checked = check_set(folder, threads=1, leave_out=["grey"])
    dropped = {key for kind, key in expected if KINDS[kind].is_left_out or kind == "grey"}
    images = checked.keys[(checked.keys > 0) & (checked.keys < 421)].tolist()
    assert checked.images == 400  # 20 of the 420 images have an odd line
    assert checked.clean_images == len(images) == 400 - 7 * 20
    assert not (dropped - {key for kind, key in expected if kind == "index"}) & {*images}


def test_a_sound_set_has_no_findings(tmp_path, decoder):
    for number, options in enumerate(({}, {"header": False}, {"vector_labels": True})):
        checked = check_set(small_set(tmp_path / str(number), **options), threads=1)
        assert found(checked) == set() and not checked.notices
        assert checked.images == checked.clean_images == 12
        idx = (tmp_path / str(number) / "train.idx").read_text()
        lines = zip(checked.keys.tolist(), checked.offsets.tolist(), strict=True)
        assert "".join(f"{key}\t{offset}\n" for key, offset in lines) == idx


def test_records_of_several_frames_are_checked(tmp_path):
    magic = struct.pack("<I", MAGIC)
    samples = []
    for shot in range(4):
        data = jpeg(face(0, shot))
        samples.append((0, data + bytes(-len(data) % 4) + magic * (shot % 3)))
    write_record_set(tmp_path, samples, 1, image_size=SIZE)
    assert found(check_set(tmp_path, threads=1)) == set()


def test_a_length_that_reaches_into_the_next_record_is_found(tmp_path):
    small_set(tmp_path)
    records = open_records(tmp_path, tmp_path)
    with open(tmp_path / "train.rec", "r+b") as file:
        # Record 3 reaches into record 4, record 5 beyond the end of the file.
        for key, length in ((3, int(np.diff(records.offsets)[2]) + 40), (5, 1 << 28)):
            file.seek(int(records.offsets[key - 1]) + 4)
            file.write(struct.pack("<I", length))
    assert found(check_set(tmp_path, threads=1)) == {("damaged", 3), ("damaged", 5)}


def test_records_without_an_image_are_found(tmp_path):
    small_set(tmp_path, header=False)
    records = open_records(tmp_path, tmp_path)
    with open(tmp_path / "train.rec", "r+b") as file:
        file.seek(int(records.offsets[4]) + 4)
        file.write(struct.pack("<I", 24))
    assert found(check_set(tmp_path, threads=1)) == {("damaged", 4)}


def test_a_property_file_that_does_not_fit_is_found(tmp_path):
    for number, text in enumerate(("4,112,112", "9,48,40", "four", "4,48")):
        small_set(tmp_path / str(number))
        (tmp_path / str(number) / "property").write_text(text)
        checked = check_set(tmp_path / str(number), threads=1)
        assert found(checked) == {("property", None)}
        assert checked.image_size == SIZE and checked.clean_images == 12


def test_without_a_property_file_most_images_give_the_size(tmp_path):
    small_set(tmp_path)
    (tmp_path / "property").unlink()
    checked = check_set(tmp_path, threads=1)
    assert found(checked) == set() and checked.image_size == SIZE and checked.num_classes == 4


def test_identity_records_that_do_not_fit_are_found(tmp_path):
    small_set(tmp_path)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    offsets = {int(a): int(b) for a, b in (line.split() for line in lines)}
    with open(tmp_path / "train.rec", "r+b") as file:
        for key, ranges in ((14, (4.0, 9.0)), (16, (float("nan"), 3.0))):
            file.seek(offsets[key] + 32)
            file.write(struct.pack("<2f", *ranges))
    # Record 14 lists keys 4 to 8, record 15 lists 7 to 9; record 16 lists none.
    kinds = found(check_set(tmp_path, threads=1))
    assert {("identity_record", 15), ("identity_record", 16)} <= kinds
    assert {("label", 10), ("label", 11), ("label", 12)} <= kinds


def test_near_duplicates_are_found_only_on_request(tmp_path):
    rng = np.random.default_rng(0)
    images = [cv2.blur(rng.integers(0, 255, (*SIZE, 3), np.uint8), (3, 3)) for _ in range(30)]
    samples = [(number // 5, jpeg(image)) for number, image in enumerate(images)]
    samples += [(6, jpeg(image, 60)) for image in images[:30:5]]
    write_record_set(tmp_path, samples, 7, image_size=SIZE)
    assert found(check_set(tmp_path, threads=1)) == set()
    checked = check_set(tmp_path, threads=1, near_duplicates=True, leave_out=["near_duplicate"])
    assert found(checked) == {("near_duplicate", 31 + p) for p in range(6)}
    assert "the image of key 1:" in checked.findings.listed()[0].text
    assert checked.clean_images == 30


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "train.idx").unlink(), "train.idx: no such file"),
        (lambda f: (f / "train.rec").write_bytes(b""), "train.rec: is empty, got 0 bytes"),
        (lambda f: (f / "train.idx").write_bytes(b"x\n" * 9), "is not a key, a tab and an offset"),
        (lambda f: (f / "train.idx").write_bytes(b"1\t4\n"), "no line names a record"),
        (lambda f: (f / "train.idx").write_bytes(b"0\t0\n"), "holds no image, got 1 records"),
        (lambda f: (f / "property").write_text("4,9000,9000"), None),
    ],
)
def test_a_set_that_cannot_be_checked_is_refused_in_one_sentence(tmp_path, change, says):
    change(small_set(tmp_path))
    if says is None:  # the images give the size
        assert found(check_set(tmp_path, threads=1)) == {("property", None)}
        return
    with pytest.raises(RecordError, match=says) as error:
        check_set(tmp_path, threads=1)
    assert "\n" not in str(error.value)


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    huge = bytearray(jpeg(face(0, 0)))
    at = huge.index(b"\xff\xc0") + 5
    huge[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    write_record_set(tmp_path, [(0, bytes(huge))] * 3, 1, image_size=(60_000, 60_000))
    with pytest.raises(RecordError, match="more than 16777216 pixels are not decoded"):
        check_set(tmp_path, threads=1)


def test_progressive_images_are_decoded_and_checked(tmp_path, decoder):
    samples = []
    for shot in range(6):
        progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
        data = cv2.imencode(".jpg", face(0, shot), progressive)[1].tobytes()
        scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 1) + 20
        samples.append((0, data if shot < 4 else data[:scan] + b"\xff\xd9"))
    write_record_set(tmp_path, samples, 1, image_size=SIZE)
    assert found(check_set(tmp_path, threads=2)) == {("cut_off", 5), ("cut_off", 6)}

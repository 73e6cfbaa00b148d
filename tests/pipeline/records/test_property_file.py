# SPDX-License-Identifier: Apache-2.0
"""The property file: its content, damaged lines, and sizes that differ from the images'."""

from __future__ import annotations

import shutil
import struct
from itertools import islice

import numpy as np
import pytest

from pipeline import build_loader
from pipeline.records.mapped import RecordError
from pipeline.records.open import open_records
from pipeline.records.property_file import Property, measure, read_property


@pytest.mark.parametrize(
    "text",
    [
        "85742,112,96",
        "85742,112,96\n",
        "85742,112,96\r\nname=x\r\n",
        "\ufeff85742,112,96\n",
        "\ufeff 85742 , 112 , 96 \n",
        "85742,\t112,\t96",
        "\n\n85742,112,96\nlicence,unknown\n",
        "085742,112,096\n",
    ],
)
def test_the_first_line_is_read(tmp_path, text):
    path = tmp_path / "property"
    path.write_text(text, encoding="utf-8")
    assert read_property(path)[:2] == (85742, (112, 96))


def test_a_missing_file_gives_defaults(tmp_path):
    assert read_property(tmp_path / "property") == Property(0, None, "")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", "''"),
        (b"\n \n", "''"),
        (b"4\n", "'4'"),
        (b"4,112\n", "'4,112'"),
        (b"a,b,c\nd\n", "'a,b,c'"),
        (b"four people", "'four people'"),
        (b"4,112,112,3\n", "'4,112,112,3'"),
        (b"4,112,112,\n", "'4,112,112,'"),
        (b"-4,112,112\n", "'-4,112,112'"),
        (b"4,-112,112\n", "'4,-112,112'"),
        (b"4,112,-112\n", "'4,112,-112'"),
        (b"0,112,112\n", "'0,112,112'"),
        (b"4,0,112\n", "'4,0,112'"),
        (b"4,112,00\n", "'4,112,00'"),
        (b"4,112.0,112\n", "'4,112.0,112'"),
        (b"4 112 112\n", "'4 112 112'"),
        (b"4,1_12,112\n", "'4,1_12,112'"),
        (b"4,70000,112\n", "'4,70000,112'"),
        (b"3000000000,112,112\n", "'3000000000,112,112'"),
        (b"4,112,112\x00\n", "'4,112,112\\x00'"),
        (b"\xff\xfe4\x00,\x00\n", "'\\xff\\xfe4\\x00,\\x00'"),
        pytest.param(b"4" * 5000 + b",112,112", f"'{'4' * 40}'...", id="long"),
    ],
)
def test_a_damaged_line_is_refused_and_shown(tmp_path, content, shown):
    path = tmp_path / "property"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_property(path)
    assert str(caught.value) == (
        f"{path}: the first line must be num_classes,height,width, three whole numbers above 0, "
        f"got {shown}; fix the line or remove the file"
    )


def test_a_folder_named_property_is_refused(tmp_path):
    with pytest.raises(RecordError) as caught:
        read_property(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot be read, got Is a directory; make it readable or remove it"
    )


@pytest.mark.parametrize("size", [(96, 80), (112, 112)])
def test_the_first_image_is_measured(make_records, tmp_path, size):
    assert measure(open_records(make_records(2, 1, image_size=size), tmp_path)) == size


def test_a_first_image_without_pixels_is_refused_by_key(make_records, tmp_path):
    noise = b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(396)
    folder = make_records(2, 1, samples=[(0, noise), (1, noise)])
    (folder / "property").unlink()
    with pytest.raises(RecordError) as caught:
        open_records(folder, tmp_path)
    assert str(caught.value) == (
        f"{folder}/train.rec: the image of key 1 cannot be decoded; fix the record or leave its "
        "key out of the .idx"
    )


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("line", ["3,128,128", "\ufeff 3 , 112 , 96 ", "3,96,112"])
def test_a_size_that_differs_from_the_images_is_refused(make_records, tmp_path, header, line):
    folder = make_records(3, 2, header=header)
    (folder / "property").write_text(line + "\nmore\n", encoding="utf-8")
    _, height, width = line.replace("\ufeff", "").replace(" ", "").split(",")
    shown = line.removeprefix("\ufeff").strip()
    for _ in range(2):
        with pytest.raises(RecordError) as caught:
            open_records(folder, tmp_path)
        assert str(caught.value) == (
            f"{folder}/property: the image size {height}x{width} is wrong, got the line '{shown}' "
            f"in the file and 112x112 for the image of key {int(header)}; fix the line or "
            "remove the file"
        )


def test_the_size_of_a_single_image_is_compared(make_records, tmp_path):
    folder = make_records(1, 1)
    (folder / "property").write_text("1,64,64\n")
    with pytest.raises(RecordError, match=r"property: the image size 64x64 is wrong, got the line"):
        open_records(folder, tmp_path)


@pytest.mark.parametrize("odd", [0, 4])
@pytest.mark.parametrize("loader", ["dali", "cpu"])
def test_a_single_image_of_another_size_is_refused_by_key(
    make_records, make_face, tmp_path, odd, loader
):
    samples = [(p, make_face(p, 0)) for p in range(6)]
    samples[odd] = (odd, make_face(odd, 0, (96, 96)))
    folder = make_records(6, 1, samples=samples)
    batches = build_loader(loader, open_records(folder, tmp_path), 3)
    with pytest.raises(RecordError) as caught:
        list(islice(batches, 2))
    batches.close()
    assert str(caught.value).startswith(
        f"{folder}/train.rec: the image of key {odd + 1} is 96x96 pixels, not 112x112; "
    )


def test_a_damaged_first_image_does_not_prevent_opening(make_records, tmp_path):
    folder = make_records(2, 2)
    lines = (folder / "train.idx").read_text().splitlines()
    offset = int(lines[1].split("\t")[1])
    with (folder / "train.rec").open("r+b") as file:
        file.seek(offset + 32)
        file.write(struct.pack("<I", 0))
    assert len(open_records(folder, tmp_path)) == 4


@pytest.mark.parametrize(
    "line",
    [
        "99999999999,112,112",
        "800,100000,100000",
        "-5,112,112",
        "800,-112,112",
        "1e3,112,112",
        "0,1,1",
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, line):
    (tmp_path / "property").write_text(f"{line}\n")
    with pytest.raises(RecordError) as caught:
        read_property(tmp_path / "property")
    assert str(caught.value).startswith(f"{tmp_path / 'property'}: the first line must be")
    assert f"got '{line}'" in str(caught.value)


def test_an_enormous_first_image_is_measured_without_decoding(
    make_records, make_face, tmp_path, monkeypatch
):
    huge = bytearray(make_face(0, 0))
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = (13_000).to_bytes(2, "big") * 2
    folder = make_records(1, 2, samples=[(0, bytes(huge)), (0, make_face(0, 1))])
    (folder / "property").unlink()
    monkeypatch.setattr("pipeline.records.property_file.decode", lambda x: pytest.fail("decoded"))
    assert open_records(folder, tmp_path).image_size == (13_000, 13_000)


@pytest.fixture
def first_record_without_image(make_records, tmp_path):
    folder = shutil.copytree(make_records(2, 2, image_size=(96, 80)), tmp_path / "set")
    offset = int((folder / "train.idx").read_text().splitlines()[1].split("\t")[1])
    with (folder / "train.rec").open("r+b") as file:
        file.seek(offset + 4)
        file.write(struct.pack("<I", 24))
    return folder


def test_the_first_image_that_can_be_read_is_measured(first_record_without_image, tmp_path):
    (first_record_without_image / "property").unlink()
    assert open_records(first_record_without_image, tmp_path).image_size == (96, 80)


def test_a_first_record_without_image_does_not_prevent_opening(
    first_record_without_image, tmp_path
):
    records = open_records(first_record_without_image, tmp_path)
    assert (len(records), records.image_size) == (4, (96, 80))

# SPDX-License-Identifier: Apache-2.0
"""The property file: what is read, the line that is shown, and sizes that are not the images'."""

from __future__ import annotations

import pytest

from pipeline.records.mapped import RecordError
from pipeline.records.property_file import Property, read_property


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
def test_what_is_read(tmp_path, text):
    path = tmp_path / "property"
    path.write_text(text, encoding="utf-8")
    assert read_property(path)[:2] == (85742, (112, 96))


def test_no_file_says_nothing(tmp_path):
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
def test_what_is_refused_is_shown(tmp_path, content, shown):
    path = tmp_path / "property"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_property(path)
    assert str(caught.value) == (
        f"{path}: the first line is not num_classes,height,width, three whole numbers above 0, got "
        f"{shown}; fix the line or remove the file"
    )


def test_a_folder_of_that_name(tmp_path):
    with pytest.raises(RecordError) as caught:
        read_property(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot be read, got Is a directory; make it readable or remove it"
    )

# SPDX-License-Identifier: Apache-2.0
"""Alignment of a folder in worker processes, without the command around it."""

from __future__ import annotations

import pytest

from alignment.landmark_files import Landmarks
from alignment.plan import AlignmentPlan
from tests.photographs import CLEAR, draw_photograph, encode
from tools.data.alignment_journal import AlignmentJournal
from tools.data.folder_alignment import FolderAlignment, ImageCoding

CODING = ImageCoding((112, 112), 95, "4:2:0")


@pytest.fixture
def work(tmp_path) -> FolderAlignment:
    """Return the alignment of three photographs, of which the last is no image."""
    landmarks, paths = Landmarks("points"), ["a/1.jpg", "2.png", "3.jpg"]
    for path, (person, shot) in zip(paths, CLEAR[:3], strict=True):
        pixels, points = draw_photograph(person, shot)
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(encode(pixels, path[-4:]))
        landmarks.add(path, points)
    (tmp_path / "in" / "3.jpg").write_bytes(b"no image")
    return FolderAlignment(tmp_path / "in", paths, AlignmentPlan(landmarks), CODING)


def test_results_keep_the_order_of_the_paths_and_progress_is_told(work, tmp_path):
    calls = []
    out = tmp_path / "out"
    out.mkdir()
    rows = work.run(2, out, None, lambda *values: calls.append(values))
    assert [row["path"] for row in rows] == work.paths
    assert [row["status"] for row in rows] == ["aligned", "aligned", "unreadable"]
    assert [row.get("image") for row in rows] == ["a/1.jpg", "2.jpg", None]
    assert calls == [("aligned", number, 3) for number in (1, 2, 3)]
    assert rows[2]["reason"] == "does not decode as an image, got 8 bytes"
    assert {path.name for path in out.rglob("*.jpg")} == {"1.jpg", "2.jpg"}


def test_known_results_are_not_computed_again(work, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    journal = AlignmentJournal(out, {})
    first = work.run(1, out, journal, lambda *_: None)
    calls = []
    assert work.run(1, out, journal, lambda *values: calls.append(values)) == first
    assert calls == []
    (work.folder / "2.png").write_bytes(b"changed")
    again = work.run(1, out, journal, lambda *values: calls.append(values))
    assert [row["status"] for row in again] == ["aligned", "unreadable", "unreadable"]
    assert calls == [("aligned", 3, 3)]
    journal.close()


def test_an_output_that_cannot_be_written_is_an_os_error(work, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("a file in the place of a folder")
    with pytest.raises(OSError):
        work.run(1, out, None, lambda *_: None)

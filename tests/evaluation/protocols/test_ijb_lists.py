# SPDX-License-Identifier: Apache-2.0
"""Lists of IJB: galleries with and without headings, and the folder of the lists."""

from __future__ import annotations

import pytest

from evaluation.protocols.ijb_lists import find_meta, read_faces, read_subjects
from evaluation.text_lists import ListError


@pytest.mark.parametrize("headings", ["TEMPLATE_ID,SUBJECT_ID,FILENAME\n", ""])
def test_a_template_is_listed_once_per_image(tmp_path, headings):
    path = tmp_path / "gallery.csv"
    path.write_text(headings + "9,101,a\n2,100,b\n2, 100 ,c\n")
    templates, subjects = read_subjects(path)
    assert templates.tolist() == [2, 9] and subjects.tolist() == [100, 101]


def test_headings_alone_are_refused(tmp_path):
    (tmp_path / "gallery.csv").write_text("TEMPLATE_ID,SUBJECT_ID\n")
    with pytest.raises(ListError, match="gallery.csv: must list templates below the headings, got"):
        read_subjects(tmp_path / "gallery.csv")


def test_the_lists_are_found_in_the_folder_of_a_subset_or_of_both(tmp_path):
    (tmp_path / "IJBB" / "meta").mkdir(parents=True)
    assert find_meta(tmp_path, "ijbb") == find_meta(tmp_path / "IJBB", "ijbb")
    with pytest.raises(ListError, match="must contain the folder meta or IJBC/meta, got neither"):
        find_meta(tmp_path, "ijbc")


@pytest.mark.parametrize(
    "lines, problem",
    [
        (["1.jpg {} 0.5"], "must have 2 faces as ijbb_face_tid_mid.txt has, got 1; make the lis"),
        (
            ["1.jpg {} 0.5", "2.jpg {} 0.5".replace("{}", "1 -2e5" + " 1" * 8)],
            "line 2: absolute values of coordinates must be at most 100000 pixels, got 200000; ",
        ),
        (["1.jpg {} 0.5", "2.jpg {} x"], "line 2: each value must be a finite number, got 'x'; "),
        (["1.jpg {} inf"], "line 1: each value must be a finite number, got 'inf'; correct the l"),
    ],
)
def test_faces_that_do_not_suit_the_list_of_templates_are_refused(tmp_path, lines, problem):
    (tmp_path / "ijbb_face_tid_mid.txt").write_text("1.jpg 7 1\n2.jpg 8 1\n")
    path = tmp_path / "ijbb_name_5pts_score.txt"
    path.write_text("\n".join(line.format("1 2 " * 5) for line in lines))
    with pytest.raises(ListError) as caught:
        read_faces(tmp_path, "ijbb")
    assert str(caught.value).startswith(f"{path}: {problem}")

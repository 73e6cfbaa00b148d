# SPDX-License-Identifier: Apache-2.0
"""Protocols of the usual verification sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.data.protocol_files import read_protocol


def read(folder: Path, text: str, **options):
    file = folder / "pairs.txt"
    file.write_text(text)
    return read_protocol(file, **options)


@pytest.mark.parametrize("header", ["10\t300\n", "2\n", ""])
def test_lfw_and_rfw(tmp_path, header):
    text = f"{header}St._John_Doe\t1\t12\r\n\r\nm.0abc\t3\tJo Lee\t4\r\n"
    assert read(tmp_path, text) == [
        (
            *("St._John_Doe/St._John_Doe_0001", "St._John_Doe/St._John_Doe_0012", True),
            ("St._John_Doe", "St._John_Doe"),
        ),
        ("m.0abc/m.0abc_0003", "Jo Lee/Jo Lee_0004", False, ("m.0abc", "Jo Lee")),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg b/2.jpg 1\na/1.jpg c d/3.jpg 0\n".replace("c d", "c_d"),
        "a/1.jpg\tb/2.jpg\t1\na/1.jpg\tc_d/3.jpg\t0\n",
        "a/1.jpg, b/2.jpg, True\na/1.jpg, c_d/3.jpg, False\n",
        "image1,image2,same\na/1.jpg,b/2.jpg,1\na/1.jpg,c_d/3.jpg,0\n",
        "\ufeff# comment\na/1.jpg b/2.jpg 1\r\na/1.jpg c_d/3.jpg -1\r\n",
    ],
)
def test_lists_of_two_images_and_an_answer(tmp_path, text):
    assert read(tmp_path, text) == [
        ("a/1.jpg", "b/2.jpg", True, None),
        ("a/1.jpg", "c_d/3.jpg", False, None),
    ]


def test_calfw_has_two_lines_per_pair_and_both_kinds_in_each_fold(tmp_path):
    lines = [f"A_{i:04d}.jpg {i // 4 + 1}" for i in range(40)] + [
        f"B_{i:04d}.jpg 0" for i in range(20)
    ]
    pairs = read(tmp_path, "\n".join(lines))
    assert len(pairs) == 30
    assert pairs[:3] == [
        ("A_0000.jpg", "A_0001.jpg", True, None),
        ("A_0002.jpg", "A_0003.jpg", True, None),
        ("B_0000.jpg", "B_0001.jpg", False, None),
    ]


@pytest.mark.parametrize("pair", ["", "7, "])
def test_youtube_faces_is_sorted_by_split(tmp_path, pair):
    """The list of the authors has the number of the pair; some copies omit it."""
    text = f"split, names, is same\n2, {pair}A_B/1, C/0, 0\n1, {pair}A_B/1, A_B/5, 1\n"
    assert read(tmp_path, text) == [
        ("A_B/1", "A_B/5", True, ("A_B", "A_B")),
        ("A_B/1", "C/0", False, ("A_B", "C")),
    ]


@pytest.fixture
def cfp(tmp_path) -> Path:
    folder = tmp_path / "Protocol"
    for kind in ("FP", "FF"):
        for fold in ("01", "02"):
            (folder / "Split" / kind / fold).mkdir(parents=True)
            (folder / "Split" / kind / fold / "same.txt").write_text("1,1\n")
            (folder / "Split" / kind / fold / "diff.txt").write_text(f"{int(fold)},2\n")
    for name, pose in (("F", "frontal"), ("P", "profile")):
        lines = [f"{i} ../Data/Images/{i:03d}/{pose}/0{i}.jpg\n" for i in (1, 2)]
        (folder / f"Pair_list_{name}.txt").write_text("".join(lines))
    return folder


def test_cfp_pairs_frontal_images_with_profiles_or_frontal_ones(cfp):
    pairs = read_protocol(cfp)
    frontal, profile = "../Data/Images/001/frontal/01.jpg", "../Data/Images/002/profile/02.jpg"
    assert [pair.same for pair in pairs] == [True, False, True, False]
    assert pairs[1] == (frontal, profile, False, ("001", "002"))
    assert read_protocol(cfp.parent) == pairs  # the folder above works as well
    assert read_protocol(cfp, cfp_kind="FF")[1].two == "../Data/Images/002/frontal/02.jpg"


def test_a_wrong_cfp_folder_is_one_sentence(cfp, tmp_path):
    (cfp / "Split" / "FP" / "01" / "diff.txt").write_text("1,9\n")
    with pytest.raises(ValueError, match=r"diff\.txt: line 1: must be two numbers of the lists"):
        read_protocol(cfp)
    with pytest.raises(ValueError, match="must be the folder Protocol of CFP with Pair_list_F.txt"):
        read_protocol(cfp / "Split")
    with pytest.raises(ValueError, match="--protocol: must be cfp for a folder, got lfw for"):
        read_protocol(cfp, "lfw")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": the list must not be empty, got 0 lines"),
        ("\n# x\n", ": must hold pairs, got comments only"),
        ("a b c d e\n", ": must hold pairs in one of the forms lfw, list, calfw, ytf, cfp, got"),
        ("a b\nc d\n", ": must hold pairs in one of the forms"),
        ("10\t300\n", ": must hold pairs in one of the forms"),
        ("image1,image2,same\n", ": must hold pairs in one of the forms"),
        ("1 300\nA\t1\t2\nA\t1\tx\n", ': line 3: must be "name n1 n2" or'),
        ("a.jpg b.jpg 1\na.jpg b.jpg 2\n", ': line 2: must be "image1 image2 0" or'),
        ("a.jpg 1\nb.jpg 1\nc.jpg 0\n", ": line 3: must be one of two lines"),
        ("1, a/0, b/1, 0\n1, a/0, b/1\n", ': line 2: must be "split, [pair,] person/number, pers'),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, problem):
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path}/pairs.txt{problem}")
    assert "\n" not in str(error.value)


def test_the_form_can_be_named(tmp_path):
    text = "a 1 1\na 0 1\n"
    assert read(tmp_path, text)[0].people == ("a", "a")
    assert read(tmp_path, text, form="list")[0] == ("a", "1", True, None)


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(b"a b 1\n\xff\n")
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("nowhere", "the file cannot be read, got 'No such file or directory'"),
        ("binary", "line 2: must be UTF-8 text, got byte 0xff"),
        ("pipe", "must be a file, got a special file"),
    ):
        with pytest.raises(ValueError, match=problem):
            read_protocol(tmp_path / name)

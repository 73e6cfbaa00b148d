# SPDX-License-Identifier: Apache-2.0
"""Files of verification scores: writing, reading and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.score_files import ScoresError, read_scores, write_scores


def test_scores_are_read_as_cosines(tmp_path):
    issame = np.array([True, False, False])
    write_scores(tmp_path / "a.npz", {"lfw": (np.array([0.5, 2, 3]), issame), "b.c": (np.ones(3), issame)})  # noqa: E501  # fmt: skip
    found = read_scores(tmp_path / "a.npz")
    assert list(found) == ["lfw", "b.c"]
    assert found["lfw"].cosines.tolist() == [0.75, 0, -0.5]
    assert found["lfw"].issame.tolist() == issame.tolist()


@pytest.mark.parametrize(
    "arrays, problem",
    [
        (None, "is not a file of scores"),
        ({"x": np.ones(2)}, "must hold the scores of a set, got none"),
        ({"a.cosines": np.ones(2)}, "got float64 .2,. and nothing"),
        ({"a.cosines": np.ones(2), "a.issame": np.ones(3, bool)}, "got float64 .2,. and bool .3,."),
        ({"a.cosines": [0.1, np.nan], "a.issame": [True, False]}, "must have one finite cosine"),
        ({"a.cosines": np.ones(2), "a.issame": [True, True]}, "got pairs of one kind"),
        ({"a.cosines": np.array([{}, {}], object), "a.issame": [True, False]}, "ValueError"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, arrays, problem):
    path = tmp_path / "a.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 damaged")
    else:
        np.savez(path, **arrays)
    with pytest.raises(ScoresError, match=problem) as error:
        read_scores(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    with pytest.raises(ScoresError, match="nowhere.npz: cannot be read"):
        read_scores(tmp_path / "nowhere.npz")


def test_an_array_and_a_huge_file_are_refused(tmp_path, monkeypatch):
    cure = "; name a file that `python -m evaluation verify --scores` has written"
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ScoresError) as error:
        read_scores(tmp_path / "a.npy")
    assert (
        str(error.value)
        == f"{tmp_path}/a.npy: must be an .npz file, got a single array (.npy){cure}"
    )
    monkeypatch.setattr("evaluation.score_files.MAX_FILE_BYTES", 100)
    with pytest.raises(ScoresError) as error:
        read_scores(tmp_path / "a.npy")
    assert str(error.value) == f"{tmp_path}/a.npy: must have at most 100 bytes, got more{cure}"

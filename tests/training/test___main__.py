# SPDX-License-Identifier: Apache-2.0
"""The command `python -m training shards`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.sharded_model import class_values, save
from training.__main__ import main
from training.checkpoint import open_checkpoint


def test_shards_of_a_run_are_gathered_and_split(tmp_path, capsys):
    save(tmp_path / "run" / "checkpoints", 29, 8)
    one, three = tmp_path / "one", tmp_path / "three"
    assert main(["shards", "gather", str(tmp_path / "run"), "--out", str(one)]) == 0
    assert main(["shards", "split", str(one), "--ranks", "3", "--out", str(three)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{one}: 29 classes of {tmp_path / 'run/checkpoints/step-00000020'} in fc7.params",
        f"{three}: 29 classes of {one} in fc7-00000-of-00003.params to fc7-00002-of-00003.params",
    ]
    assert np.array_equal(open_checkpoint(three).stored_head()["weight"], class_values(29))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["gather", "{folder}"], "no checkpoint found"),
        (["split", "{folder}/checkpoints", "--ranks", "0"], "must be from 1 to 99,999, got 0"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, arguments, text):
    save(tmp_path / "checkpoints", 4, 2)
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "empty" if "gather" in arguments else tmp_path
    given = [argument.format(folder=folder) for argument in arguments]
    assert main(["shards", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and text in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()

# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

import argparse

import pytest

from evaluation.commands import options


@pytest.mark.parametrize("name", ["--model", "--checkpoint"])
def test_the_model_has_two_names(name):
    parser = argparse.ArgumentParser()
    options.add_model_options(parser)
    found = parser.parse_args([name, "run"])
    assert (found.model, found.batch_size, found.device) == ("run", 64, "auto")


def test_an_output_file_needs_a_folder_and_a_name(tmp_path):
    options.check_output_file("--out", None)
    options.check_output_file("--out", str(tmp_path / "new.npz"))
    with pytest.raises(ValueError, match="^--out: the folder of the file does not exist, got "):
        options.check_output_file("--out", str(tmp_path / "no" / "new.npz"))
    with pytest.raises(ValueError, match=f"^--out: must name a file, got the folder {tmp_path}; "):
        options.check_output_file("--out", str(tmp_path))


def test_the_batch_size_is_positive():
    options.check_batch_size(1)
    with pytest.raises(ValueError, match="^--batch-size: must be at least 1, got -3; "):
        options.check_batch_size(-3)

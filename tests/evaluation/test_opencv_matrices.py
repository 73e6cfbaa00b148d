# SPDX-License-Identifier: Apache-2.0
"""Matrix files: the bytes that MegaFace's programs read, and the refusal of damaged files."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from evaluation.opencv_matrices import (
    MatrixError,
    read_feature,
    read_shape,
    write_feature,
    write_features,
)


def test_a_feature_has_the_bytes_of_megaface_and_is_read_back(tmp_path):
    feature = np.array([1.5, -2, 0.25], np.float32)
    write_feature(tmp_path / "a.bin", feature)
    assert (tmp_path / "a.bin").read_bytes() == struct.pack("<4i3f", 3, 1, 4, 5, 1.5, -2, 0.25)
    np.testing.assert_array_equal(read_feature(tmp_path / "a.bin"), feature)


def test_features_of_a_submission_have_one_row_each(tmp_path):
    write_features(tmp_path / "all.bin", np.arange(6, dtype=np.float64).reshape(2, 3))
    expected = struct.pack("<4i6f", 2, 3, 12, 5, *range(6))
    assert (tmp_path / "all.bin").read_bytes() == expected
    assert read_shape(tmp_path / "all.bin") == (2, 3)


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "must have a header of 16 bytes, got 0 bytes"),
        (struct.pack("<4i2f", 2, 1, 4, 6, 0, 0), "the type must be 5 (32-bit floats), got 6"),
        (struct.pack("<4i2f", 2, 1, 8, 5, 0, 0), "a row must have 4 bytes, got 8 bytes"),
        (struct.pack("<4i", -2, -1, -4, 5), "rows and columns must be at least 1, got -2 x -1"),
        (struct.pack("<4if", 2, 1, 4, 5, 0), "must have 24 bytes for 2 x 1 values, got 20 bytes"),
        (struct.pack("<4i4f", 2, 2, 8, 5, 0, 0, 0, 0), "must hold one feature, got a matrix of 2"),
        (struct.pack("<4i2f", 2, 1, 4, 5, 0, np.nan), "all values must be finite, got NaN"),
        (struct.pack("<4i", 2**31 - 1, 1, 4, 5), "must have 8589934604 bytes for 2147"),
    ],
)
def test_a_damaged_feature_is_refused_by_file(tmp_path, content, problem):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(MatrixError) as error:
        read_feature(tmp_path / "a.bin")
    assert str(error.value).startswith(f"{tmp_path}/a.bin: {problem}")


def test_a_missing_feature_and_a_folder_are_refused(tmp_path):
    with pytest.raises(MatrixError, match="cannot be read, got 'No such file or directory'; "):
        read_feature(tmp_path / "a.bin")
    with pytest.raises(MatrixError, match="must be a regular file, got a folder or a special"):
        read_feature(tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Rows that are read in blocks: the same rows from memory, from a file, and selected."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.row_sources import (
    ArrayRows,
    FileRows,
    RowError,
    SelectedRows,
    check_dimensions,
    read_all_unit_rows,
    read_unit_rows,
    select_rows,
)

VALUES = np.random.default_rng(0).standard_normal((9000, 4)).astype(np.float32)


@pytest.fixture
def stored(tmp_path) -> FileRows:
    path = tmp_path / "rows"
    path.write_bytes(b"header" + VALUES.astype("<f8").tobytes())
    return FileRows(str(path), 6, VALUES.shape, np.dtype("<f8"))


def test_blocks_of_a_file_are_the_rows_of_the_array(stored):
    assert len(stored) == 9000 and stored.dimensions == 4
    np.testing.assert_array_equal(stored.read(8990, 9010), VALUES[8990:])
    expected = VALUES / np.linalg.norm(VALUES, axis=1, keepdims=True)
    np.testing.assert_allclose(read_all_unit_rows(stored, 1000), expected, atol=1e-6)


@pytest.mark.parametrize("indices", [[0, 1, 4500, 8999], [8999, 3, 3, 0], range(0, 9000, 7)])
def test_selected_rows_keep_the_order_of_their_numbers(stored, indices):
    indices = np.array(indices)
    found = select_rows(stored, indices)
    assert isinstance(found, SelectedRows) == bool((np.diff(indices) > 0).all())
    np.testing.assert_array_equal(found.read(0, len(found)), VALUES[indices])
    np.testing.assert_array_equal(found.read(1, 3), VALUES[indices[1:3]])
    assert found.name(1) == stored.name(indices[1]) and found.dimensions == 4


def test_all_rows_in_order_are_the_source_itself(stored):
    assert select_rows(stored, np.arange(9000)) is stored


@pytest.mark.parametrize("value, length", [(0, "0.0"), (np.nan, "nan"), (np.inf, "inf")])
def test_a_row_without_direction_is_refused_by_name(value, length):
    values = VALUES[:5].copy()
    values[3] = value
    rows = ArrayRows(values, "a.npy", [f"{i}.jpg" for i in range(5)])
    with pytest.raises(RowError) as error:
        read_unit_rows(rows, 2, 5)
    assert str(error.value) == (
        f"a.npy: 3.jpg: the embedding cannot be normalised, got L2 norm {length}; compute the "
        "embedding again"
    )


def test_a_file_that_shrinks_and_rows_of_another_model_are_refused(stored):
    with pytest.raises(RowError, match="b: row 0: all embeddings must have the same number of v"):
        check_dimensions(stored, ArrayRows(np.ones((2, 3), np.float32), "b"))
    with open(stored.path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(RowError, match="must hold 9000 rows of 4 values, got an end of file"):
        stored.read(0, 100)

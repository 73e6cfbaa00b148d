from __future__ import annotations

import numpy as np
import pytest

from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor, describe_names, read_float32, widen_bfloat16


def stored(values: np.ndarray) -> StoredTensor:
    return StoredTensor(values.shape, str(values.dtype), lambda: values)


def test_every_bfloat16_keeps_its_value():
    bits = np.arange(2**16, dtype=np.uint16)
    wide = widen_bfloat16(bits)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal((wide.view(np.uint32) >> 16).astype(np.uint16), bits)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_value_that_is_not_finite_in_float32_is_refused(value):
    with pytest.raises(InterchangeError, match="net.pth: the tensor 'a' must have finite"):
        read_float32("net.pth", "a", stored(np.array([1.0, value])))


def test_other_types_become_float32():
    found = read_float32("net.pth", "a", stored(np.array([1, 2], np.int64)))
    assert found.dtype == np.float32 and found.tolist() == [1, 2]


def test_long_lists_of_names_are_shortened():
    assert describe_names(["a", "b"]) == "'a', 'b'"
    assert describe_names(["a", "b", "c", "d"]) == "'a', 'b', 'c' and 1 more"

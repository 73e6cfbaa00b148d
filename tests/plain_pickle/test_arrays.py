"""Arrays, numbers of NumPy and bytes are read without a call of NumPy's functions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from plain_pickle import Arrays, PlainPickleError, load_with


def load(data: bytes, encodable_characters: int = 1000) -> object:
    return load_with(data, Arrays(encodable_characters))[0]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_and_bytes_are_read(protocol):
    array = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
    found = load(pickle.dumps([array, np.float32(2.5), b"\xff", b""], protocol))
    np.testing.assert_array_equal(found[0], array)
    assert found[0].dtype == np.int16 and found[1:] == [2.5, b"\xff", b""]


def test_encoded_characters_are_limited():
    data = pickle.dumps([b"\xff" * 300], 2)
    assert load(data) == [b"\xff" * 300]
    with pytest.raises(PlainPickleError, match=r"calls _codecs\.encode with arguments"):
        load(data, 299)


def test_arrays_of_objects_are_refused():
    with pytest.raises(PlainPickleError, match="got the dtype 'O8'"):
        load(pickle.dumps(np.array([None]), 2))

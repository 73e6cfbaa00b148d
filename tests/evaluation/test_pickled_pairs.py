# SPDX-License-Identifier: Apache-2.0
"""The pickle of a verification set: read by Python, by our reader, and without copies."""

from __future__ import annotations

import pickle
import tracemalloc

from evaluation.pairs import read_pairs
from evaluation.pickled_pairs import pickled_parts

IMAGES = [bytes(range(256)), b"\xff\xd8\n'", b"third", b"4"]


def test_python_and_our_reader_read_the_pickle(tmp_path):
    images = [*IMAGES, IMAGES[0], bytes(bytearray(IMAGES[0]))]
    data = b"".join(pickled_parts(images, [True, False, True]))
    found, issame = pickle.loads(data, encoding="bytes")
    assert (found, issame) == (images, [True, False, True])
    assert found[4] is found[0] and found[5] is not found[0]
    (tmp_path / "a.bin").write_bytes(data)
    pairs = read_pairs(tmp_path / "a.bin")
    assert pairs.images == images and pairs.issame.tolist() == [True, False, True]


def test_no_copy_of_an_image_is_kept():
    images = [bytes([number]) * 100_000 for number in range(100)]
    tracemalloc.start()
    size = sum(map(len, pickled_parts(images, [True] * 50)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 10_000_000 and peak < 1_500_000

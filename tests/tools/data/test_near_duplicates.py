# SPDX-License-Identifier: Apache-2.0
"""Perceptual hashes: copies of an image are found, other images are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tools.data import near_duplicates
from tools.data.near_duplicates import HASH_BITS, find_near_duplicates, hash_images

COUNT, SIDE = 150, 112
MIN_RECALL = 0.95


@pytest.fixture(scope="module")
def images():
    """Return images with smooth shapes and some texture, RGB uint8 (N, 112, 112, 3)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(COUNT):
        levels = [
            cv2.resize(rng.normal(0, 50 / k, (3 * k, 3 * k, 3)), (SIDE, SIDE)) for k in (1, 2, 4, 8)
        ]
        found.append(np.clip(128 + sum(levels), 30, 220).astype(np.uint8))
    return np.array(found)


def test_thousands_of_equal_images_are_found_without_comparing_all_pairs(monkeypatch):
    hashes = np.random.default_rng(2).integers(0, 256, (3, 32), dtype=np.uint8)
    hashes[:, 0] &= 0x7F
    hashes[2] = hashes[1]
    hashes[2, 5] ^= 1
    many = np.concatenate([np.repeat(hashes[:2], 30_000, axis=0), hashes[2:], hashes[:1]])
    compared = []
    distances = near_duplicates._distances

    def count(hashes, first, second):
        compared.append(len(first))
        return distances(hashes, first, second)

    monkeypatch.setattr(near_duplicates, "_distances", count)
    rows, earlier, bits = near_duplicates.find_near_duplicates(many)
    assert rows.tolist() == [*range(1, 30_000), *range(30_001, 60_002)]
    assert set(earlier[:29_999]) == {0} and set(earlier[29_999:-2]) == {30_000}
    assert earlier[-2:].tolist() == [30_000, 0] and bits[-2:].tolist() == [1, 0]
    assert not bits[:-2].any() and sum(compared) < 10_000


def encoded(image: np.ndarray, quality: int = 90) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    shift = (1 - factor) * (SIDE - 1) / 2
    matrix = np.array([[factor, 0, shift], [0, factor, shift]])
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


COPIES = {
    "quality 50": lambda image: encoded(image, 50),
    "larger by 2 %": lambda image: encoded(scaled(image, 1.02)),
    "smaller by 2 %": lambda image: encoded(scaled(image, 0.98)),
    "resized": lambda image: encoded(cv2.resize(cv2.resize(image, (110, 110)), (SIDE, SIDE))),
    "brighter": lambda image: encoded(cv2.add(image, np.full(4, 25.0))),
    "darker": lambda image: encoded(cv2.subtract(image, np.full(4, 25.0))),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_found_with_their_originals(images, change):
    copies = np.array([COPIES[change](image) for image in images])
    hashes = np.concatenate([hash_images(images), hash_images(copies)])
    rows, earlier, distances = find_near_duplicates(hashes)
    assert np.isin(rows, np.arange(COUNT, 2 * COUNT)).all()
    assert (earlier == rows - COUNT).all() and len(rows) >= MIN_RECALL * COUNT
    assert (distances <= near_duplicates.MAX_DISTANCE_BITS).all()


def test_the_pairs_are_those_of_a_comparison_of_all_hashes():
    rng = np.random.default_rng(1)
    bits = rng.random((40, 256)) < 0.5
    rates = np.tile(np.arange(8), 40)[:, None] / 90
    bits = np.repeat(bits, 8, axis=0) ^ (rng.random((320, 256)) < rates)
    bits[:, 0] = False
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    distance[np.triu_indices(320)] = 999
    expected = np.flatnonzero(distance.min(axis=1) <= 20)
    rows, earlier, distances = find_near_duplicates(np.packbits(bits, axis=1))
    assert {*expected.tolist()} <= {*rows.tolist()}
    assert (distance[rows, earlier] == distances).all() and HASH_BITS == 255
    found = np.isin(rows, expected)
    assert (distances[found] == distance.min(axis=1)[rows[found]]).all()


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_near_duplicates(count):
    assert [len(part) for part in find_near_duplicates(np.zeros((count, 32), np.uint8))] == [0] * 3


def test_many_equal_hashes_take_bounded_work(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_MAX_LAG", 3)
    compared = []
    distances = near_duplicates._distances

    def counted(hashes, first, second):
        compared.append(len(first))
        return distances(hashes, first, second)

    monkeypatch.setattr(near_duplicates, "_distances", counted)
    rows, _, bits = find_near_duplicates(np.zeros((1000, 32), np.uint8))
    assert len(rows) == 999 and not bits.any()
    assert sum(compared) <= 40 * 3 * 1000

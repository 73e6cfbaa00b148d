# SPDX-License-Identifier: Apache-2.0
"""Augmentation: distributions of the parameters; DALI and the plain loader change images alike."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.gluon_loader import augment
from pipeline.records.open import open_records
from pipeline.sampling.augmentation import (
    LUMA,
    NO_AUGMENTATION,
    Augmentation,
    AugmentParams,
    choose_params,
    color_matrices,
)
from pipeline.sampling.batches import Share
from pipeline.sampling.epoch_orders import Position

IDS = np.arange(20000, dtype=np.int64)
SIZE = (112, 112)
ALL = Augmentation(color_jitter=0.125, jpeg_quality=(2, 20), cut_out=40, shift=6, grey=0.1)
ONE_BY_ONE = {
    "mirror": Augmentation(),
    "color_jitter": replace(NO_AUGMENTATION, color_jitter=0.4),
    "jpeg_quality": replace(NO_AUGMENTATION, jpeg_quality=(2, 20)),
    "cut_out": replace(NO_AUGMENTATION, cut_out=40),
    "shift": replace(NO_AUGMENTATION, shift=6),
    "grey": replace(NO_AUGMENTATION, grey=0.5),
    "all": ALL,
}


def test_no_augmentation_changes_nothing():
    params = choose_params(NO_AUGMENTATION, IDS, 1, 0, SIZE)
    assert not params.mirror.any() and not params.quality.any() and not params.cut_out.any()
    assert (params.color == 1).all() and not params.shift.any()


def test_parameters_follow_their_distributions():
    params = choose_params(ALL, IDS, 3, 5, SIZE)
    assert abs(params.mirror.mean() - 0.5) < 0.02
    grey = params.color[:, 2] == 0
    assert abs(grey.mean() - 0.1) < 0.01
    counts = np.stack([np.bincount(along + 6, minlength=13) for along in params.shift.T])
    assert counts.shape == (2, 13) and np.abs(counts / len(IDS) - 1 / 13).max() < 0.008
    assert abs(np.corrcoef(params.shift.T)[0, 1]) < 0.04
    params = choose_params(replace(ALL, grey=0.0), IDS, 3, 5, SIZE)
    assert np.abs(params.color - 1).max() <= 0.125
    assert np.abs(params.color.mean(axis=0) - 1).max() < 0.003
    assert np.abs(params.color.std(axis=0) - 0.125 / 3**0.5).max() < 0.002
    assert np.abs(np.corrcoef(params.color.T) - np.eye(3)).max() < 0.04
    compressed = params.quality[params.quality > 0]
    assert abs(len(compressed) / len(IDS) - 0.5) < 0.02
    counts = np.bincount(compressed)
    assert set(np.flatnonzero(counts)) == set(range(2, 21))
    assert np.abs(counts[2:] / len(compressed) - 1 / 19).max() < 0.012
    assert abs(np.corrcoef(params.quality > 0, params.mirror)[0, 1]) < 0.04


def test_squares_are_centred_anywhere_and_clipped_to_the_image():
    squares = choose_params(ALL, IDS, 3, 5, SIZE).cut_out
    some = squares[squares[:, 2] > 0]
    assert abs(len(some) / len(IDS) - 0.5) < 0.02
    top, left, height, width = some.T
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() == (left + width).max() == 112
    assert height.min() == width.min() == 20 and height.max() == width.max() == 40
    # Expected height of a 40-pixel square whose centre is uniform, clipped at the edges.
    assert abs(height.mean() - (72 * 40 + 2 * sum(range(20, 40))) / 112) < 0.3
    odd = choose_params(replace(ALL, cut_out=7), IDS, 3, 5, (64, 48)).cut_out
    assert (odd[:, 0] + odd[:, 2]).max() == 64 and (odd[:, 1] + odd[:, 3]).max() == 48
    assert set(np.unique(odd[:, 2])) == {0, 4, 5, 6, 7}


def test_probabilities_are_respected():
    always = replace(ALL, jpeg_probability=1.0, cut_out_probability=0.1)
    params = choose_params(always, IDS, 1, 0, SIZE)
    assert (params.quality >= 2).all()
    assert abs((params.cut_out[:, 2] > 0).mean() - 0.1) < 0.01


def test_parameters_depend_on_seed_epoch_and_id_alone():
    params = choose_params(ALL, IDS, 3, 5, SIZE)
    part = choose_params(ALL, IDS[40:60], 3, 5, SIZE)
    for whole, some in zip(params, part):
        assert (whole[40:60] == some).all()
    for seed, epoch in ((4, 5), (3, 6)):
        assert (choose_params(ALL, IDS, seed, epoch, SIZE).color != params.color).any(axis=1).all()
    for name, augmentation in ONE_BY_ONE.items():
        if name not in ("all", "color_jitter"):
            alone = choose_params(augmentation, IDS, 3, 5, SIZE)
            field = {"jpeg_quality": "quality"}.get(name, name)
            if name == "grey":
                # Half of the images are grey here; they include the tenth that is grey with ALL.
                assert (alone.color[params.color[:, 2] == 0, 2] == 0).all()
                continue
            assert (getattr(alone, field) == getattr(params, field)).all()


def mxnet_jitter(pixels: np.ndarray, color: np.ndarray, order: list[int]) -> np.ndarray:
    """Apply the formulas of MXNet's augmenters to RGB pixels, with given factors and order."""
    image = mx.nd.array(pixels)
    coefficients = mx.nd.array([[LUMA.tolist()]])
    for which in order:
        factor = float(color[which])
        if which == 0:
            image = image * factor
        elif which == 1:
            grey = (image * coefficients).sum() * 3 / image.size
            image = image * factor + grey * (1 - factor)
        else:
            grey = (image * coefficients).sum(axis=2, keepdims=True)
            image = image * factor + grey * (1 - factor)
    return image.asnumpy()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]])
def test_the_colour_matrices_equal_the_three_jitters_in_any_order(order):
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (20, 30, 3)).astype(np.float32)
    color = np.array([1.1, 0.8, 1.3], dtype=np.float32)
    ((matrix,), (mean_matrix,)) = color_matrices(color[None])
    ours = pixels @ matrix.T + mean_matrix @ pixels.mean((0, 1))
    assert np.abs(ours - mxnet_jitter(pixels, color, order)).max() < 1e-3


def test_the_plain_loader_applies_each_parameter():
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    plain = AugmentParams(
        np.False_, np.ones(3, np.float32), np.int32(0), *(np.zeros(n, np.int32) for n in (4, 2))
    )
    assert (augment(image.copy(), plain) == image).all()
    assert (augment(image.copy(), plain._replace(mirror=np.True_)) == image[:, ::-1]).all()
    square = plain._replace(cut_out=np.array([100, 3, 12, 20]), mirror=np.True_)
    cut = augment(image.copy(), square)[:, ::-1]
    assert (cut[100:112, 3:23] == 128).all()
    untouched = np.ones((112, 112), dtype=bool)
    untouched[100:112, 3:23] = False
    assert (cut[untouched] == image[untouched]).all()
    brighter = augment(image.copy(), plain._replace(color=np.array([1.25, 1, 1], np.float32)))
    assert np.allclose(brighter, image * 1.25, atol=1e-3) and brighter.max() > 300  # not clipped
    grey = augment(image.copy(), plain._replace(color=np.array([1, 1, 0], np.float32)))
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    assert np.abs(grey - expected[:, :, None]).max() < 1.01
    moved = augment(image.copy(), plain._replace(shift=np.array([3, -5], np.int32)))
    assert (moved[3:, :-5] == image[:-3, 5:]).all()
    assert (moved[:3] == 128).all() and (moved[:, -5:] == 128).all()
    coarse = augment(image.copy(), plain._replace(quality=np.int32(5))).astype(int)
    assert 10 < np.abs(coarse - image).mean() < 100


@pytest.fixture(scope="module")
def sets(make_records, make_face, tmp_path_factory):
    """Return two joined sets, without one person."""
    others = [(p, make_face(50 + p, i)) for p in range(6) for i in range(9)]
    folders = [make_records(7, 10), make_records(6, 9, samples=others)]
    lines = (folders[0] / "train.idx").read_text().splitlines(keepends=True)
    (folders[0] / "train.idx").write_text("".join(lines[:1] + lines[9:]))  # person 0 keeps two
    records = open_records(folders, tmp_path_factory.mktemp("scan"), images_filter=5)
    assert len(records) == 60 + 54 and records.num_classes == 12
    return records


def batches(name, records, count, augmentation, **options):
    loader = build_loader(name, records, 16, augmentation=augmentation, **options)
    found = list(islice(loader, count))
    loader.close()
    images = np.concatenate([b.image.asnumpy() for b in found])
    return images, np.concatenate([b.label.asnumpy() for b in found]), [b.after for b in found]


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_all_decoders_give_the_same_images(sets, name):
    found = []
    for operators, decode in (("plain", "cpu"), ("native", "cpu"), ("native", "native")):
        ops.use(operators)
        images, _, _ = batches("dali", sets, 14, ONE_BY_ONE[name], threads=2, decode=decode)
        found.append(images)
    ops.use("plain")
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_dali_augments_like_the_plain_loader(sets, name):
    augmentation, count = ONE_BY_ONE[name], 14  # into the second epoch
    ours, labels, after = batches("dali", sets, count, augmentation, threads=2, prefetch=3)
    theirs, same_labels, same_after = batches("cpu", sets, count, augmentation, workers=0)
    assert (labels == same_labels).all() and after == same_after
    difference = np.abs(ours - theirs).mean((1, 2, 3)) * 128
    assert difference.max() <= 2.0
    plain, _, _ = batches("dali", sets, count, NO_AUGMENTATION)
    changed = np.abs(ours - plain).mean((1, 2, 3)) * 128 > 2.0
    # Doing nothing, or the same to all images, must fail.
    share = {"all": 0.9, "color_jitter": 0.8, "shift": 0.9}.get(name, 0.3)
    assert changed.mean() > share
    assert name in ("all", "color_jitter", "shift") or changed.mean() < 0.7


def test_readers_and_ranks_agree_on_the_parameters(make_records, tmp_path):
    one = open_records(make_records(12, 10), tmp_path)
    seen = {}
    for options in (
        {},
        {"share": Share(1, 2)},
        {"reader": "window", "window": 20, "index_folder": tmp_path},
        {"position": Position(0, 32)},
    ):
        images, _, _ = batches("dali", one, 3, ALL, **options)
        plain, _, _ = batches("dali", one, 3, NO_AUGMENTATION, **options)
        for changed, original in zip(images, plain, strict=True):
            first = seen.setdefault(original.tobytes(), changed)
            assert (first == changed).all()
    assert len(seen) < 4 * 48  # some images occur more than once

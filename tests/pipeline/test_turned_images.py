# SPDX-License-Identifier: Apache-2.0
"""Images that Exif turns and truncated images, in every loader."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.decode.autotune import choose_decode_path, measure, sample_batches
from pipeline.decode.cache import DecodedCache
from pipeline.decode.dali import MEAN, STD
from pipeline.records.open import open_records
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.records.recordio import RecordError
from pipeline.sampling.augmentation import Augmentation

NUMBER, BATCH = 24, 8
SIZES = [(112, 112), (64, 48)]
DALI = {
    "plain": {"operators": "plain"},
    "cpu": {"decode": "cpu"},
    "native": {"decode": "native"},
    "cached native": {"decode": "native", "cached": True},
    "cached cpu": {"decode": "cpu", "cached": True},
    "cached plain": {"operators": "plain", "cached": True},
}
READERS = {
    "random": {},
    "blocks": {"reader": "blocks", "block": 4, "window": 16},
    "window": {"reader": "window", "window": 8},
}
LOADERS = [
    (kind, reader)
    for kind in (*DALI, "loader=cpu")
    for reader in READERS
    if reader != "window" or "cached" not in kind
]
NO_MIRROR = Augmentation(mirror=False)


def exif(order, orientation):
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    payload = b"Exif\0\0" + mark + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def turned(jpeg, number):
    """Add Exif of orientation ``number % 9`` (0: none), in one of two byte orders, to a JPEG."""
    orientation = number % 9
    if not orientation:
        return jpeg
    front = b"\xff\xfe\0\5abc" if number % 2 else b""  # a comment
    return jpeg[:2] + front + exif("<>"[number // 9 % 2], orientation) + jpeg[2:]


def stored_size(size, number):
    return size[::-1] if number % 9 > 4 else size


@pytest.fixture(scope="module", params=SIZES, ids=["square", "oblong"])
def made(request, make_records, make_face, tmp_path_factory):
    """Return a set with every orientation, whose upright images have one size, and its JPEGs."""
    size = request.param
    jpegs = [turned(make_face(n, 0, stored_size(size, n)), n) for n in range(NUMBER)]
    folder = make_records(NUMBER, 1, samples=list(enumerate(jpegs)), image_size=size)
    return open_records(folder, tmp_path_factory.mktemp("scan")), jpegs


def batches(records, tmp_path, kind, reader, augmentation=NO_MIRROR, count=3):
    """Return images (count, B, 3, H, W) and labels (count, B)."""
    options = dict(DALI.get(kind, {"workers": 0})) | READERS[reader]
    ops.use(options.pop("operators", "native"))
    if options.pop("cached", False):
        options["cache"] = DecodedCache(records, 100)
    name = "dali" if kind in DALI else "cpu"
    options |= {"augmentation": augmentation, "index_folder": tmp_path}
    loader = build_loader(name, records, BATCH, **options)
    try:
        found = [next(loader) for _ in range(count)]
        return tuple(
            np.stack([part.asnumpy() for part in parts])
            for parts in ([b.image for b in found], [b.label for b in found])
        )
    finally:
        loader.close()


def pixels_of_mxnet(jpegs):
    """Return the normalised images that ``mx.image.imdecode`` gives, (N, 3, H, W)."""
    pixels = np.stack([mx.image.imdecode(jpeg).asnumpy() for jpeg in jpegs]).astype(np.float64)
    return ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize(("kind", "reader"), LOADERS)
def test_every_loader_gives_the_pixels_of_mxnet(made, tmp_path, kind, reader):
    records, jpegs = made
    images, labels = batches(records, tmp_path, kind, reader)
    assert sorted(labels.reshape(-1)) == list(range(NUMBER))
    expected = pixels_of_mxnet(jpegs)[labels.astype(int)]
    assert np.abs(images - expected).max() < 1e-6


@pytest.mark.parametrize("kind", ["plain", "cpu", "cached cpu"])
@pytest.mark.parametrize(
    "options", [{"shift": 3, "cut_out": 9}, {"color_jitter": 0.1, "jpeg_quality": (20, 40)}]
)
def test_turned_images_are_augmented_like_upright_ones(made, tmp_path, kind, options):
    records, jpegs = made
    (tmp_path / "upright").mkdir()
    files = [str(tmp_path / "upright" / f"train.{end}") for end in ("idx", "rec")]
    same = mx.recordio.MXIndexedRecordIO(*files, "w")
    for number, (key, jpeg) in enumerate(zip(records.keys.tolist(), jpegs, strict=True)):
        png = cv2.imencode(".png", mx.image.imdecode(jpeg, to_rgb=0).asnumpy())[1].tobytes()
        header = mx.recordio.IRHeader(0, number, key, 0)
        same.write_idx(key, mx.recordio.pack(header, png))
    same.close()
    same = open_records(tmp_path / "upright", tmp_path)
    assert same.image_size == records.image_size
    for one in (kind, "native"):
        augmentation = Augmentation(**options)
        found, labels = batches(records, tmp_path / "a", one, "random", augmentation)
        wanted, _ = batches(same, tmp_path / "b", kind, "random", augmentation)
        assert len(set(labels.reshape(-1))) == NUMBER
        assert (found == wanted).all()


def test_without_property_the_size_is_that_of_the_turned_image(make_records, make_face, tmp_path):
    jpegs = [turned(make_face(n, 0, (48, 64)), 6) for n in range(4)]
    folder = make_records(4, 1, samples=list(enumerate(jpegs)), image_size=(64, 48))
    (folder / "property").unlink()
    assert open_records(folder, tmp_path).image_size == (64, 48)


def test_a_turned_image_of_another_size_is_refused_by_key(make_records, make_face, tmp_path):
    jpegs = [make_face(n, 0, (64, 48)) for n in range(8)]
    jpegs[5] = turned(jpegs[5], 6)
    folder = make_records(8, 1, samples=list(enumerate(jpegs)), image_size=(64, 48))
    records = open_records(folder, tmp_path)
    key = records.keys[5]
    for kind in (*DALI, "loader=cpu"):
        with pytest.raises(RecordError, match=rf"key {key} is 48x64 pixels, not 64x48"):
            batches(records, tmp_path, kind, "random", count=1)


@pytest.mark.parametrize("reader", READERS)
def test_a_turned_image_that_cannot_be_decoded_is_refused_by_key(
    make_records, make_face, tmp_path, reader
):
    jpegs = [make_face(n, 0) for n in range(8)]
    broken = turned(jpegs[5], 6)
    at = broken.index(b"\xff\xdb")
    jpegs[5] = broken[:at] + b"\xff\xd9"  # without tables, frame header and scan
    folder = make_records(8, 1, samples=list(enumerate(jpegs)))
    records = open_records(folder, tmp_path)
    for kind in ("plain", "cpu", "native", "loader=cpu"):
        with pytest.raises(RecordError, match=rf"key {records.keys[5]} cannot be decoded; "):
            batches(records, tmp_path, kind, reader, count=1)


def test_the_list_of_jpegs_holds_upright_copies(made):
    records, jpegs = made
    ops.use("native")
    for feed in (None, ops.loader_kernels()):
        reader, rows = RecordReader(records, feed), np.arange(NUMBER)
        for memory in (None, BufferRing(1)):
            images = reader.gather(rows, memory)
            for image, jpeg in zip(images, jpegs, strict=True):
                flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
                expected = mx.image.imdecode(jpeg, to_rgb=0).asnumpy()
                assert (cv2.imdecode(image, flags) == expected).all()
        checked = reader.check(rows)
        assert [len(image) for image in checked] == [len(image) for image in images]
        assert reader.check(np.array([0, 9])) is None  # without Exif


def test_autotuning_accepts_turned_images(made):
    records, _ = made
    ops.use("native")
    options = {"batch_size": 8, "threads": 1, "ctx": mx.cpu(), "augmentation": NO_MIRROR}
    for path in ("cpu", "native"):
        assert measure(sample_batches(records, path, **options), 8, 0.01) > 0
    name, notice = choose_decode_path(records, gather=lambda rows: rows, **options)
    assert (name, "the compiled decoder does not support" in notice) == ("cpu", True)


def test_a_decoded_cache_of_another_version_is_not_used(made, tmp_path, monkeypatch):
    records, _ = made
    cache = DecodedCache(records, 100, tmp_path)
    (now,) = tmp_path.iterdir()
    cache.close()
    for name in ("_CONTENT", "cv2"):
        with monkeypatch.context() as patch:
            other = "another version" if name == "_CONTENT" else SimpleNamespace(__version__="0.0")
            patch.setattr(f"pipeline.decode.cache.{name}", other)
            cache = DecodedCache(records, 100, tmp_path)
            (then,) = tmp_path.iterdir()
            cache.close()
            assert then.name != now.name


def cut_off(jpeg):
    """Return a JPEG without half of its scan, but with an end-of-image marker."""
    at = jpeg.index(b"\xff\xda")
    return jpeg[: (at + len(jpeg)) // 2] + b"\xff\xd9"


@pytest.mark.parametrize("orientation", [0, 3])
@pytest.mark.parametrize("kind", ["native", "cached native"])
@pytest.mark.parametrize("reader", READERS)
def test_a_truncated_image_with_an_end_marker_is_refused_by_key(
    make_records, make_face, tmp_path, capfd, kind, reader, orientation
):
    if kind == "cached native" and reader == "window":
        reader = "random"  # the window reader has no cache
    jpegs = [make_face(n, 0) for n in range(8)]
    jpegs[5] = cut_off(turned(jpegs[5], orientation))
    folder = make_records(8, 1, samples=list(enumerate(jpegs)))
    records = open_records(folder, tmp_path)
    with pytest.raises(RecordError) as caught:
        batches(records, tmp_path, kind, reader, count=1)
    assert str(caught.value) == (
        f"{folder}/train.rec: the image of key {records.keys[5]} is cut off, got an end-of-image "
        "marker before its last pixels; fix the record or leave its key out of the .idx"
    )
    assert "Corrupt JPEG" not in capfd.readouterr().err  # libjpeg did not invent pixels


def test_dali_refuses_a_truncated_turned_image(make_records, make_face, tmp_path):
    jpegs = [make_face(n, 0) for n in range(8)]
    jpegs[5] = cut_off(turned(jpegs[5], 3))
    records = open_records(make_records(8, 1, samples=list(enumerate(jpegs))), tmp_path)
    with pytest.raises(RecordError, match=rf"key {records.keys[5]} is cut off, got an end-of-"):
        batches(records, tmp_path, "cpu", "random", count=1)

# SPDX-License-Identifier: Apache-2.0
"""The choice of the decoder, and the same images from all decoders, bit by bit."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode.cache import DecodedCache
from pipeline.decode.dali_reader import DaliReaderDecoder
from pipeline.decode.decoders import (
    CachedDecoder,
    DaliDecoder,
    JpegBytes,
    NativeDecoder,
    batches_per_group,
    make_decoder,
)
from pipeline.records import RecordReader, open_records
from pipeline.records.read_ahead import ReadAhead
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Share, batch_plans
from pipeline.sampling.epoch_orders import Position, epoch_order
from pipeline.sampling.samplers import (
    MAX_GAP_BYTES,
    NORMAL_RECORD_BYTES,
    RandomSampler,
    WindowSampler,
)
from tests.pipeline.sampling.sets import sparse_set

GAP = MAX_GAP_BYTES + NORMAL_RECORD_BYTES
ROOT = Path(__file__).resolve().parents[3]
COLOURS, SHIFT = Augmentation(color_jitter=0.1), Augmentation(shift=4)
OTHER_DEVICE = mx.Context("cpu_shared", 0)  # stands for a GPU
# {name: (operators, decode, cached)}
DECODERS = {
    "plain": ("plain", "cpu", False),
    "dali": ("native", "cpu", False),
    "native": ("native", "native", False),
    "cached": ("native", "native", True),
    "cached dali": ("native", "cpu", True),
    "cached plain": ("plain", "cpu", True),
}


@pytest.fixture(scope="module")
def faces(make_records, tmp_path_factory):
    return open_records(make_records(13, 10), tmp_path_factory.mktemp("scan"))


def making(records, name, sampler=None, **options):
    """Return the decoder of a name in DECODERS."""
    operators, decode, cached = DECODERS[name]
    ops.use(operators)
    cache = DecodedCache(records, 100) if cached else None
    sampler = sampler or RandomSampler(records, 16)
    return make_decoder(decode, records, sampler, cache=cache, **options)


def images_of(records, name, batch_size, count, augmentation=Augmentation(), **options):
    """Return the images (count, B, 3, H, W) of some batches, and their plans."""
    sampler = RandomSampler(records, batch_size, seed=3)
    decoder = making(records, name, sampler, augmentation=augmentation, **options)
    start = sampler.batches(Position())
    images = decoder(batch_plans(records, start, seed=3, augmentation=augmentation))
    found = list(islice(images, count))
    images.close()
    decoder.close()
    return np.stack([image.asnumpy() for image, _ in found]), [plan for _, plan in found]


@pytest.mark.parametrize(
    ("name", "augmentation", "ctx", "kind", "source", "by_kernel"),
    [
        ("native", Augmentation(), mx.cpu(), NativeDecoder, None, None),
        ("cached", Augmentation(), mx.cpu(), CachedDecoder, None, None),
        ("cached dali", Augmentation(), mx.cpu(), CachedDecoder, None, None),
        ("dali", Augmentation(), mx.cpu(), DaliDecoder, JpegBytes, True),
        ("dali", SHIFT, mx.cpu(), DaliDecoder, JpegBytes, True),
        ("dali", COLOURS, mx.cpu(), DaliDecoder, JpegBytes, False),
        ("native", SHIFT, mx.cpu(), DaliDecoder, NativeDecoder, True),
        ("native", COLOURS, mx.cpu(), DaliDecoder, NativeDecoder, False),
        ("cached", SHIFT, mx.cpu(), DaliDecoder, CachedDecoder, False),
        ("plain", Augmentation(), mx.cpu(), DaliDecoder, JpegBytes, False),
        ("cached plain", Augmentation(), mx.cpu(), DaliDecoder, CachedDecoder, False),
        ("native", Augmentation(), OTHER_DEVICE, DaliDecoder, NativeDecoder, False),
        ("dali", Augmentation(), OTHER_DEVICE, DaliDecoder, JpegBytes, False),
        ("cached", Augmentation(), OTHER_DEVICE, DaliDecoder, CachedDecoder, False),
    ],
)
def test_the_source_of_images_and_the_normaliser_are_chosen(
    faces, name, augmentation, ctx, kind, source, by_kernel
):
    decoder = making(faces, name, augmentation=augmentation, ctx=ctx)
    assert type(decoder) is kind
    if kind is DaliDecoder:
        assert type(decoder.images) is source
        assert (decoder.normalizer is not None) == by_kernel
    decoder.close()


@pytest.mark.parametrize(("decode", "gaps"), [("cpu", False), ("cpu", True), ("native", False)])
def test_dali_reads_windows_if_it_decodes_and_there_are_no_gaps(faces, monkeypatch, decode, gaps):
    monkeypatch.setattr(WindowSampler, "has_gaps", lambda _: gaps)
    ops.use("native")
    sampler = WindowSampler(faces, 16, window=40)
    decoder = make_decoder(decode, faces, sampler)
    uses_reader = decode == "cpu" and not gaps
    assert isinstance(decoder, DaliReaderDecoder) == uses_reader
    decoder.close()


@pytest.mark.parametrize("operators", ["plain", "native"])
def test_a_set_with_gaps_is_read_in_the_same_order_without_dalis_reader(
    make_records, tmp_path, monkeypatch, operators
):
    records = sparse_set(make_records(6, 10, header=False), tmp_path, (0, 0, 2 * GAP))
    ops.use(operators)

    def batches():
        sampler = WindowSampler(records, 7, window=20)
        decoder = make_decoder("cpu", records, sampler, index_folder=tmp_path / "index")
        plans = batch_plans(
            records, sampler.batches(Position()), seed=1, augmentation=Augmentation()
        )
        images = decoder(plans)
        found = [(image.asnumpy(), plan.rows) for image, plan in islice(images, 20)]
        images.close()
        decoder.close()
        return type(decoder), found

    kind, found = batches()
    assert kind is DaliDecoder
    monkeypatch.setattr(WindowSampler, "has_gaps", lambda _: False)
    kind, by_dali = batches()
    assert kind is DaliReaderDecoder
    for one, other in zip(found, by_dali, strict=True):
        assert (one[0] == other[0]).all() and (one[1] == other[1]).all()


READ = """
import resource, sys
from itertools import islice
from pipeline import build_loader
from pipeline.records import open_records

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

records = open_records(*sys.argv[1:])
options = {"decode": "cpu", "reader": "window", "index_folder": sys.argv[2]}
loader = build_loader("dali", records, 4, window=8, **options)  # loads all libraries
next(loader)
loader.close()
before = peak_mib()
loader = build_loader("dali", records, 4, window=1 << 20, **options)  # so DALI copies
for batch in islice(loader, 40):
    assert batch.image.asnumpy().std() > 0.1
loader.close()
print(peak_mib() - before)
"""


def test_gaps_use_no_memory(make_records, tmp_path):
    records = sparse_set(make_records(6, 10, header=False), tmp_path, (*[0] * 7, 1 << 30))
    done = run_program(READ, records.files[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512


def test_the_default_decoder_and_an_unavailable_one(faces):
    sampler = RandomSampler(faces, 16)
    ops.use("native")
    decoder = make_decoder(None, faces, sampler)
    assert type(decoder) is NativeDecoder
    decoder.close()
    ops.use("plain")
    decoder = make_decoder(None, faces, sampler)
    assert type(decoder) is DaliDecoder
    decoder.close()
    with pytest.raises(ValueError, match=r"^data\.decode: 'native' needs the compiled operators"):
        make_decoder("native", faces, sampler)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 512), (100, 5), (128, 4), (700, 1)])
def test_groups_have_about_512_images(batch_size, count):
    assert batches_per_group(batch_size) == count


def test_a_decoder_has_all_mapped_files(faces):
    for name in ("dali", "native", "cached"):
        decoder = making(faces, name)
        assert len(decoder.files) == len(RecordReader(faces).files) + (name == "cached")
        decoder.close()


def test_a_cache_is_filled_once(faces, monkeypatch):
    decoded: list[int] = []
    store = DecodedCache.store

    def seen(self, rows, images):
        decoded.extend(rows.tolist())
        store(self, rows, images)

    monkeypatch.setattr(DecodedCache, "store", seen)
    images, plans = images_of(faces, "cached", 16, 20)  # three epochs
    assert sorted(decoded) == list(range(130))
    by_row = {}
    for image, row, mirror in zip(
        images.reshape(-1, *images.shape[2:]),
        np.concatenate([plan.rows for plan in plans]).tolist(),
        np.concatenate([plan.params.mirror for plan in plans]).tolist(),
    ):
        same = by_row.setdefault((row, mirror), image)
        assert (same == image).all()


@pytest.fixture(scope="module")
def mixed(make_records, make_face, tmp_path_factory):
    """Return a set with images that the compiled decoder does not support."""
    magic = (0xCED7230A).to_bytes(4, "little")

    def made(number):
        jpeg = make_face(number, 0)
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        kind = "abbaaaccbaddaaab"[number % 16]
        if kind == "b":
            flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
            return cv2.imencode(".jpg", pixels, flags)[1].tobytes()
        if kind == "c":
            flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411]
            return cv2.imencode(".jpg", pixels, flags)[1].tobytes()
        # The magic number in a comment splits the record into parts.
        comment = b"\xff\xfe" + (2 + 2 * 7).to_bytes(2, "big") + b"\0\0" + magic * 3
        return jpeg[:2] + comment + jpeg[2:] if kind == "d" else jpeg

    folder = make_records(16, 4, samples=[(i // 4, made(i)) for i in range(64)])
    return open_records(folder, tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("name", ["dali", "native", "cached", "cached dali"])
def test_dali_decodes_images_that_the_compiled_decoder_skips(mixed, name, batch_size):
    ops.use("native")
    assert (
        RecordReader(mixed, ops.loader_kernels()).find(np.arange(64))[1] == 0
    ).sum() == 8  # records in parts
    count = 80 // batch_size + 1
    plain, _ = images_of(mixed, "plain", batch_size, count)
    found, _ = images_of(mixed, name, batch_size, count, threads=2)
    assert (found == plain).all()


@pytest.mark.parametrize(
    ("name", "kind"), [("dali", {np.ndarray}), ("plain", {list}), ("native", set())]
)
def test_records_are_read_ahead_for_devices_other_than_the_cpu(faces, monkeypatch, name, kind):
    asked, kinds = [], set()
    gather, read_ahead = RecordReader.gather, ReadAhead.__call__

    def seen_gather(self, rows, buffers=None):
        found = gather(self, rows, buffers)
        kinds.add(type(found))
        return found

    def seen_read_ahead(self, rows):
        asked.append(rows)
        read_ahead(self, rows)

    monkeypatch.setattr(RecordReader, "gather", seen_gather)
    monkeypatch.setattr(ReadAhead, "__call__", seen_read_ahead)
    images, _ = images_of(faces, name, 16, 3, ctx=OTHER_DEVICE)
    assert kinds == kind  # container of the JPEGs for DALI
    order = epoch_order(len(faces), 3, 0)
    assert (np.concatenate(asked)[:80] == order[:80]).all()  # two batches further
    expected, _ = images_of(faces, "plain", 16, 3)
    assert (images == expected).all()


def test_cached_images_are_not_read_ahead(faces, monkeypatch):
    asked: list[np.ndarray] = []
    monkeypatch.setattr(ReadAhead, "__call__", lambda self, rows: asked.append(rows))
    sampler = RandomSampler(faces, 8, share=Share(1, 2))
    decoder = making(faces, "cached", sampler)
    decoder.fill(np.arange(100))
    images = decoder(
        batch_plans(faces, sampler.batches(Position()), seed=1, augmentation=Augmentation())
    )
    next(images)
    assert len(asked) and min(map(min, filter(len, asked))) >= 100
    images.close()
    decoder.close()


def test_images_are_on_the_requested_device(faces):
    sampler = RandomSampler(faces, 4)
    for name in DECODERS:
        decoder = making(faces, name, sampler, ctx=mx.cpu(1))
        batches = sampler.batches(Position())
        images = decoder(batch_plans(faces, batches, seed=1, augmentation=Augmentation()))
        assert next(images)[0].context == mx.cpu(1)
        images.close()
        decoder.close()


def run_program(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_dali_refuses_to_be_loaded_after_horovod():
    done = run_program("import horovod.mxnet, pipeline.decode.dali")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pipeline.decode.dali: must be imported before Horovod, got horovod.mxnet "
        "already loaded; import this module before the call of launch.ranks.comm.connect()"
    )
    done = run_program("import pipeline.decode.dali, horovod.mxnet; print('both')")
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr

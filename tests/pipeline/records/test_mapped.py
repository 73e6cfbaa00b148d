# SPDX-License-Identifier: Apache-2.0
"""A file that becomes shorter while it is read gives an error that names it, never a SIGBUS."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ops
from pipeline.decode.cache import DecodedCache
from pipeline.decode.decoders import CachedDecoder
from pipeline.decode.native import JpegFallbackDecoder
from pipeline.records import mapped
from pipeline.records.mapped import RecordError, check_file
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.recordio import map_rec, read_headers
from pipeline.sampling.bad_images import BadImages

ROOT = Path(__file__).resolve().parents[3]
PAGE = os.sysconf("SC_PAGESIZE")
BLOCKS = {"reader": "blocks", "block": 8, "window": 40}
WINDOW = {"reader": "window", "window": 20}
# Options of every decode path; PROGRAM uses "operators", "cached", "shift" and "color".
PATHS = {
    "plain": {"operators": "plain"},
    "dali": {"operators": "native", "decode": "cpu"},
    "native": {"operators": "native"},
    "native blocks": {"operators": "native", **BLOCKS},
    "native window": {"operators": "native", **WINDOW},
    "dali window": {"operators": "native", "decode": "cpu", **WINDOW},
    "plain window": {"operators": "plain", **WINDOW},
    "cached": {"operators": "native", "cached": True},
    "cached plain": {"operators": "plain", "cached": True},
    "augmented": {"operators": "native", "shift": 4},
    "colours": {"operators": "native", "color": 0.1},
    "cpu": {"name": "cpu", "operators": "plain", "workers": 0},
    "cpu workers": {"name": "cpu", "operators": "plain", "workers": 2},
}
PROGRAM = """
import json, os, sys
from pathlib import Path
import ops
from pipeline.decode.cache import DecodedCache
from pipeline.loader import build_loader
from pipeline.records import RecordError, open_records
from pipeline.sampling.augmentation import Augmentation

guarded, cases = map(json.loads, sys.argv[1:])
if not guarded:  # a host without a compiler
    ops.guard = lambda: None
    import pipeline.loader
    pipeline.loader.guard = ops.guard


def try_case(folder, before, size, options):
    folder, loader = Path(folder), None
    ops.use(options.pop("operators"))
    (folder / "scan").mkdir()
    records = open_records(folder, folder / "scan")
    if before < 0:
        os.truncate(folder / "train.rec", size)
    cached = options.pop("cached", False)
    cache = DecodedCache(records, 100, folder / "scan") if cached else None
    shift, color = options.pop("shift", 0), options.pop("color", 0.0)
    options["augmentation"] = Augmentation(shift=shift, color_jitter=color)
    options |= {"index_folder": folder / "scan", "cache": cache}
    try:
        loader = build_loader(options.pop("name", "dali"), records, 8, **options)
        for number, batch in enumerate(loader):
            if number == before:
                os.truncate(folder / "train.rec", size)
            assert batch.image.asnumpy().std() > 0.1, "a batch of zeros"
            assert number < before + 2000, "no error"
    except RecordError as error:
        return str(error)
    finally:
        if loader:
            loader.close()


for name, case in cases.items():
    print(json.dumps([name, try_case(*case)]), flush=True)
"""


def half_of(rec):
    """Return about half the size of a file, inside a page; the page ends with zeros."""
    return rec.stat().st_size // 2 // PAGE * PAGE + 100


EARLY = {"native": 9, "dali window": 9, "plain": 9, "cached": 0, "cpu workers": 9}
"""Remaining pages of a file that is truncated between opening and mapping it."""
CASES = {
    **{f"half, {path}": (path, 2, half_of) for path in PATHS},
    **{f"nothing, {w}": (w, 0, 0) for w in ("native", "dali window", "plain", "cpu workers")},
    **{f"early, {path}": (path, -1, pages * PAGE) for path, pages in EARLY.items()},
    **{f"no compiler, {path}": (path, 1, PAGE) for path in ("plain", "plain window", "cpu")},
}


@pytest.fixture(scope="module")
def messages(make_records, tmp_path_factory):
    """Return {name: (message, .rec, size before, size after)} for each of CASES.

    Each case truncates the file of a loader after some batches.  One process runs many cases,
    because importing MXNet and DALI takes seconds; worker processes need a process of their own.
    """
    parent, found, groups = tmp_path_factory.mktemp("shortened"), {}, {}
    for number, (name, (path, before, size)) in enumerate(CASES.items()):
        folder = shutil.copytree(make_records(13, 10), parent / str(number))
        rec = folder / "train.rec"
        size = size(rec) if callable(size) else size
        found[name] = (rec, rec.stat().st_size, size)
        group = ("no compiler" not in name, PATHS[path].get("name"))
        groups.setdefault(group, {})[name] = (str(folder), before, size, PATHS[path])
    for (guarded, _), cases in groups.items():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(guarded), json.dumps(cases)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        for line in done.stdout.splitlines():
            name, text = json.loads(line)
            found[name] = (text, *found[name])
    return found


@pytest.fixture
def folder(make_records, tmp_path):
    return shutil.copytree(make_records(13, 10), tmp_path / "set")


def sentence(rec, size, whole):
    return (
        f"{rec}: became shorter while it was read, got {size} bytes where {whole} were mapped; "
        "copy the file again and rerun the command"
    )


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("early")])
def test_every_decode_path_names_a_file_that_became_shorter(messages, name):
    text, rec, whole, size = messages[name]
    assert text == sentence(rec, size, whole)


@pytest.mark.parametrize("path", EARLY)
def test_a_file_that_became_shorter_before_it_was_mapped_is_named(messages, path):
    text, rec, _, _ = messages[f"early, {path}"]
    assert text.startswith(f"{rec}: ") and "\n" not in text
    assert re.search(r"is empty|holds no complete record|cannot be read with data\.reader", text)


@pytest.fixture
def guard():
    ops.use("native")
    found = ops.guard()
    ops.use("plain")
    mapped.guard_with(found)
    yield found
    mapped.guard_with(None)


@pytest.fixture(params=["guarded", "copied"])
def either(request, monkeypatch):
    """Read with the guard, and by system calls as on a host without a compiler."""
    if request.param == "guarded":
        request.getfixturevalue("guard")
        monkeypatch.setattr(mapped, "copy_pieces", None)  # must not be called
    else:
        mapped.guard_with(None)


def test_the_shorter_one_of_several_files_is_named(make_records, tmp_path, either):
    folders = [shutil.copytree(make_records(4, 5), tmp_path / name) for name in "abc"]
    reader = RecordReader(open_records(folders, tmp_path))
    reader.check_files()
    os.truncate(folders[1] / "train.rec", PAGE)
    message = rf"^{folders[1]}/train\.rec: became shorter while it was read, got {PAGE} bytes where"
    with pytest.raises(RecordError, match=message):
        reader.read(np.arange(60))
        reader.check_files()
    with pytest.raises(RecordError, match=message):  # not an error about the image
        reader.check(np.arange(60))


def test_a_replaced_or_removed_file_is_still_read(folder, tmp_path, either):
    rec = folder / "train.rec"
    records = open_records(folder, tmp_path)
    reader, rows = RecordReader(records), np.arange(len(records))
    before = [jpeg.tobytes() for jpeg in reader.read(rows)]
    (folder / "new").write_bytes(b"something else")
    os.replace(folder / "new", rec)
    assert [jpeg.tobytes() for jpeg in reader.read(rows)] == before
    rec.unlink()
    assert [jpeg.tobytes() for jpeg in reader.read(rows)] == before
    reader.check_files()


def test_a_growing_file_is_still_read(folder, tmp_path, either):
    reader = RecordReader(open_records(folder, tmp_path))
    with (folder / "train.rec").open("ab") as file:
        file.write(bytes(3 * PAGE))
    reader.check(np.arange(130))
    reader.check_files()
    assert reader.read(np.arange(0)) == []


def test_a_fault_in_a_file_of_full_length_is_reported_as_an_io_error(folder, tmp_path, guard):
    rec = folder / "train.rec"
    whole, data = rec.read_bytes(), map_rec(rec)
    os.truncate(rec, PAGE)
    assert data[-1] == 0 and data[PAGE] == 0
    rec.write_bytes(whole)  # the same inode
    with pytest.raises(RecordError, match=r"train\.rec: cannot be read, got SIGBUS \(an I/O err"):
        check_file(data)
    check_file(map_rec(rec))  # a later map is fine
    assert map_rec(rec).tobytes() == whole


def test_a_cached_index_that_became_shorter_is_named(folder, tmp_path, monkeypatch, guard):
    monkeypatch.setattr("pipeline.records.open.MIN_CACHED_RECORDS", 1)
    open_records(folder, tmp_path)
    (kept,) = tmp_path.glob("index-*.npy")
    records = open_records(folder, tmp_path)
    reader = RecordReader(records)
    os.truncate(kept, 0)
    assert not records.labels.any()
    with pytest.raises(RecordError) as error:
        reader.check_files()
    assert re.fullmatch(
        rf"{kept}: became shorter while it was read, got 0 bytes where \d+ were mapped; "
        "rerun the command, which writes the file again",
        str(error.value),
    )


@pytest.mark.parametrize("size", [0, PAGE + 8])
def test_reading_headers_of_a_file_that_became_shorter_is_refused(folder, size, either):
    rec = folder / "train.rec"
    data, offsets = map_rec(rec), np.arange(0, 300_000, 3000)
    read_headers(data, offsets)
    os.truncate(rec, size)
    with pytest.raises(RecordError, match=rf"train\.rec: became shorter .* got {size} bytes"):
        read_headers(data, offsets)


def test_headers_are_the_same_with_and_without_guard(folder, guard):
    data = map_rec(folder / "train.rec")
    offsets = np.append(np.arange(0, len(data) - 64, 48), len(data) - 32)
    once = read_headers(data, offsets)
    again = read_headers(data.copy(), offsets)
    mapped.guard_with(None)
    data = map_rec(folder / "train.rec")
    assert not mapped.is_guarded(data)
    copied = read_headers(data, offsets)
    for name in ("magic", "cflag", "length", "flag"):
        assert (getattr(once, name) == getattr(copied, name)).all()
        assert (getattr(once, name) == getattr(again, name)).all()


@pytest.mark.parametrize("forbidden", [False, True])
def test_copied_pieces_equal_the_file(tmp_path, monkeypatch, forbidden):
    whole = np.random.default_rng(0).integers(0, 256, 50 * PAGE, dtype=np.uint8)
    (tmp_path / "a").write_bytes(whole.tobytes())
    data = mapped.map_file(tmp_path / "a")
    if forbidden:  # a sandbox

        class System:
            def process_vm_readv(self, *_):
                ctypes.set_errno(errno.EPERM)
                return -1

        monkeypatch.setattr(mapped, "libc", System)
    monkeypatch.setattr(mapped, "_MAX_CALL_BYTES", 20 * PAGE)
    random = np.random.default_rng(1)
    for count in (0, 1, 5, 3000):
        begins = random.integers(0, 20 * PAGE, count)
        sizes = random.integers(0, 30 * PAGE if count < 9 else 90, count)
        expected = [whole[a : a + n] for a, n in zip(begins, sizes, strict=True)]
        found = mapped.copy_pieces(data, begins, sizes)
        assert (found == np.concatenate([np.empty(0, np.uint8), *expected])).all()


def test_the_decoded_cache_stores_no_zeros(make_records, tmp_path, guard):
    folder = shutil.copytree(make_records(4, 5), tmp_path / "set")
    records = open_records(folder, tmp_path)
    ops.use("native")
    feed = ops.loader_kernels()
    ops.use("plain")
    reader = RecordReader(records, feed)
    cache = DecodedCache(records, 100, tmp_path)
    jpegs = JpegFallbackDecoder(reader, max_images=20, threads=1, kernels=feed)
    decoder = CachedDecoder(
        cache, jpegs, groups=iter, bad_images=BadImages(records), normalizer=None
    )
    os.truncate(folder / "train.rec", 8 * PAGE)
    with pytest.raises(RecordError, match=r"became shorter"):
        decoder.fill(np.arange(20))
    assert len(cache.missing(np.arange(20))) == 20
    decoder.close()


def test_a_decoded_cache_that_became_shorter_is_named(faces_cache, guard):
    cache, path = faces_cache
    cache.store(np.arange(2), np.full((2, 112, 112, 3), 9, np.uint8))
    check_file(cache.images)
    os.truncate(path, PAGE)
    cache.store(np.arange(2), np.full((2, 112, 112, 3), 9, np.uint8))  # no SIGBUS
    with pytest.raises(RecordError, match=rf"^{path}: became shorter while .*; start the same"):
        check_file(cache.images)
    cache.close()


@pytest.fixture
def faces_cache(folder, tmp_path, guard):
    cache = DecodedCache(open_records(folder, tmp_path), 100, tmp_path)
    (path,) = tmp_path.glob("face-decoded-*")
    return cache, path


@pytest.mark.parametrize("starts", [[0, PAGE], [PAGE, 0]], ids=["second piece", "first piece"])
def test_pages_that_the_kernel_refuses_are_an_error(tmp_path, starts):
    (tmp_path / "a").write_bytes(bytes(3 * PAGE))
    data = mapped.map_file(tmp_path / "a")
    starts, sizes = np.array(starts), np.array([PAGE, PAGE])
    assert not mapped.copy_pieces(data, starts, sizes).any()
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(data.ctypes.data + PAGE), PAGE, 0) == 0
    with pytest.raises(RecordError, match="^memory-mapped file: cannot be read, got EFAULT; check"):
        mapped.copy_pieces(data, starts, sizes)


def test_a_map_that_the_guard_cannot_watch_is_checked_every_time(tmp_path):
    (tmp_path / "a").write_bytes(bytes(PAGE))
    mapped.guard_with(SimpleNamespace(watch=lambda address: None))
    try:
        data = mapped.map_file(tmp_path / "a")
        assert not mapped.is_guarded(data)
        watch = mapped.FileWatch([data])
        assert watch.is_check_due() and watch.is_check_due()
    finally:
        mapped.guard_with(None)

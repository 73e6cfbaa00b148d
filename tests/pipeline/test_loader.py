# SPDX-License-Identifier: Apache-2.0
"""Every loader and reader gives the right images, mirrored and normalised correctly."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
import pipeline
from pipeline import build_loader
from pipeline.decode.cache import DecodedCache
from pipeline.records import RecordError, RecordReader, open_records
from pipeline.sampling.augmentation import Augmentation, choose_params
from pipeline.sampling.batches import Share
from pipeline.sampling.epoch_orders import Position, block_order, epoch_order, rank_rows
from pipeline.sampling.samplers import PersonSampler

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, IMAGES = 13, 10  # 130 images: no batch size here divides them
# Options of each decoder; ``loading`` uses "operators" and "cached".
DALI = {
    "plain": {"operators": "plain"},
    "dali": {"operators": "native", "decode": "cpu"},
    "native": {"operators": "native"},
    "cached": {"operators": "native", "cached": True},
    "cached dali": {"operators": "native", "cached": True, "decode": "cpu"},
    "cached plain": {"operators": "plain", "cached": True},
}
BLOCKS = {"reader": "blocks", "block": 8, "window": 40}
READERS = pytest.mark.parametrize("reader", [{}, BLOCKS], ids=["random", "blocks"])
WINDOW = [DALI["plain"], DALI["dali"], DALI["native"]]
LOADERS = (*(("dali", options) for options in DALI.values()), ("cpu", {"workers": 0}))
LOADER_NAMES = [*DALI, "cpu"]
JOIN_SECONDS = 240


def mirrored(keys, seed, epoch):
    return choose_params(Augmentation(), keys, seed, epoch, (112, 112)).mirror


@contextlib.contextmanager
def loading(name, records, batch_size, operators="native", cached=False, **options):
    ops.use(operators)
    if cached:
        options["cache"] = DecodedCache(records, 100)
    loader = build_loader(name, records, batch_size, **options)
    try:
        yield loader
    finally:
        loader.close()


def take(count, name, records, batch_size, **options):
    """Return the images, labels and positions of some batches as NumPy arrays."""
    with loading(name, records, batch_size, **options) as loader:
        batches = list(islice(loader, count))
    return (
        np.stack([b.image.asnumpy() for b in batches]),
        np.stack([b.label.asnumpy() for b in batches]),
        [b.after for b in batches],
    )


@pytest.fixture(scope="module")
def faces(make_records, tmp_path_factory):
    """Return a set with JPEGs of faces."""
    return open_records(make_records(PEOPLE, IMAGES), tmp_path_factory.mktemp("scan"))


def numbered(row: int) -> bytes:
    """Return an image that shows its row number and which side is its left."""
    cells = np.zeros((4, 4))
    cells[:, 0] = 1
    cells[:, 1:3] = np.array([row >> bit & 1 for bit in range(8)]).reshape(4, 2)
    image = np.kron(cells, np.ones((28, 28))) * 255
    return cv2.imencode(".jpg", image.astype(np.uint8))[1].tobytes()


def read_number(image: np.ndarray) -> tuple[int, bool]:
    """Return (row, mirrored) of a normalised ``numbered`` image (3, 112, 112)."""
    cells = (image.mean(0).reshape(4, 28, 4, 28).mean((1, 3)) > 0).astype(int)
    left, right = cells[:, 0], cells[:, 3]
    assert (left != right).all() and (left == left[0]).all(), cells
    bits = (cells if left[0] else cells[:, ::-1])[:, 1:3].reshape(-1)
    return sum(int(bit) << place for place, bit in enumerate(bits)), not left[0]


@pytest.fixture(scope="module")
def numbers(make_records, tmp_path_factory):
    """Return a set whose images show their row numbers."""
    rows = range(PEOPLE * IMAGES)
    folder = make_records(PEOPLE, IMAGES, samples=[(r // IMAGES, numbered(r)) for r in rows])
    return open_records(folder, tmp_path_factory.mktemp("scan"))


def seen_numbers(images, labels):
    """Return (row, mirrored) of every image of some batches; check the labels."""
    found = [read_number(i) for i in images.reshape(-1, *images.shape[2:])]
    assert [row // IMAGES for row, _ in found] == labels.reshape(-1).tolist()
    return found


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@READERS
def test_batches_have_the_rows_and_mirrors_of_the_sampler(numbers, name, options, reader):
    batch_size, rank, size, seed = 8, 1, 2, 5
    share, count = Share(rank, size), 10
    images, labels, after = take(
        count, name, numbers, batch_size, share=share, seed=seed, **options, **reader
    )
    found = seen_numbers(images, labels)
    expected, positions = [], []
    for epoch, steps in ((0, 8), (1, 2)):
        order = (
            block_order(len(numbers), seed, epoch, 8, 40)
            if reader
            else epoch_order(len(numbers), seed, epoch)
        )
        for step in range(steps):
            rows = rank_rows(order, step * batch_size * size, batch_size, rank, size)
            flags = mirrored(numbers.keys[rows], seed, epoch)
            expected += list(zip(rows.tolist(), flags.tolist()))
            positions.append(Position(epoch, (step + 1) * batch_size * size))
    assert found == expected
    assert after == positions
    assert {mirrored for _, mirrored in found} == {True, False}


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
def test_batches_of_people_have_the_rows_of_the_sampler(numbers, name, options):
    # 13 people, in a set with identity records: an epoch is 3 steps of 2 ranks x 2 people.
    options = options | {"images_per_person": 4, "seed": 5}
    with loading(name, numbers, 8, **options) as loader:
        assert loader.images_per_epoch == 52
    ranks = [take(4, name, numbers, 8, share=Share(rank, 2), **options) for rank in range(2)]
    rows = np.array([[row for row, _ in seen_numbers(i, labels)] for i, labels, _ in ranks])
    rows = rows.reshape(2, 4, 8).swapaxes(0, 1).reshape(4, 16)
    order = PersonSampler(numbers, 8, images_per_person=4, seed=5, share=Share(0, 2)).order
    assert (rows[:3].reshape(-1) == order(0)[:48]).all() and (rows[3] == order(1)[:16]).all()
    after = ranks[0][2]
    assert after == ranks[1][2] == [*(Position(0, 16 * i) for i in (1, 2, 3)), Position(1, 16)]
    tail = take(2, name, numbers, 8, position=after[1], **options)
    found = [row for row, _ in seen_numbers(*tail[:2])]
    assert found == [*order(0)[32:48]]  # one rank resumes after two


def test_pixels_are_normalised(faces):
    images, _, _ = take(2, "dali", faces, 16, augmentation=Augmentation(mirror=False))
    rows = epoch_order(len(faces), 1, 0)[:32]
    jpegs = RecordReader(faces).read(rows)
    pixels = np.stack([cv2.imdecode(j, cv2.IMREAD_COLOR)[:, :, ::-1] for j in jpegs])
    expected = (pixels.transpose(0, 3, 1, 2).astype(np.float64) - 127.5) / 128
    assert images.dtype == np.float32 and images.shape == (2, 16, 3, 112, 112)
    assert np.abs(images.reshape(32, 3, 112, 112) - expected).mean() < 1.5 / 128


@pytest.mark.parametrize("decoder", DALI.values(), ids=DALI)
def test_dali_equals_the_gluon_loader(faces, decoder):
    batches = 10  # into the second epoch
    ours, our_labels, our_places = take(
        batches, "dali", faces, 16, threads=2, prefetch=3, **decoder
    )
    theirs, their_labels, their_places = take(batches, "cpu", faces, 16, workers=0)
    assert (our_labels == their_labels).all()
    assert our_places == their_places
    difference = np.abs(ours - theirs).mean((2, 3, 4)) * 128 / 255
    flipped = np.abs(ours[..., ::-1] - theirs).mean((2, 3, 4)) * 128 / 255
    assert difference.max() <= 1.5 / 255
    assert flipped.min() > 3 / 255  # a wrong mirror would be found


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@READERS
@pytest.mark.parametrize("skipped", [3, 8, 11])
def test_a_loader_resumes_from_any_position(faces, name, options, reader, skipped):
    options = options | reader
    images, labels, after = take(14, name, faces, 16, **options)
    position = after[skipped - 1]
    tail = take(14 - skipped, name, faces, 16, position=position, **options)
    assert (tail[0] == images[skipped:]).all()
    assert (tail[1] == labels[skipped:]).all()
    assert tail[2] == after[skipped:]


@pytest.mark.parametrize("decoder", WINDOW, ids=["plain", "dali", "native"])
@pytest.mark.parametrize(("size", "window"), [(1, 1), (2, 40)])
def test_the_window_reader_covers_an_epoch(numbers, tmp_path, decoder, size, window):
    batch_size, seed = 4, 9
    steps = len(numbers) // (batch_size * size)
    for epoch in (0, 1):
        rows = []
        for rank in range(size):
            images, labels, after = take(
                *(steps, "dali", numbers, batch_size),
                position=Position(epoch, 0),
                seed=seed,
                share=Share(rank, size),
                reader="window",
                window=window,
                index_folder=tmp_path,
                **decoder,
            )
            found = seen_numbers(images, labels)
            keys = numbers.keys[[row for row, _ in found]]
            assert [m for _, m in found] == mirrored(keys, seed, epoch).tolist()
            assert after[-1] == Position(epoch, steps * batch_size * size)
            rows += [row for row, _ in found]
        assert len(set(rows)) == len(rows)
        assert len(numbers) - len(rows) < batch_size * size
        assert window > 1 or size > 1 or rows == sorted(rows)


@pytest.mark.parametrize("decoder", WINDOW, ids=["plain", "dali", "native"])
def test_the_window_reader_changes_its_order_every_epoch(numbers, tmp_path, decoder):
    options = {**decoder, "reader": "window", "window": 50, "index_folder": tmp_path}
    images, labels, after = take(64, "dali", numbers, 4, **options)
    epochs = [
        [row for row, _ in seen_numbers(images[part], labels[part])]
        for part in (slice(0, 32), slice(32, 64))
    ]
    assert [a.epoch for a in after] == [0] * 32 + [1] * 32
    assert epochs[0] != epochs[1]
    again = take(32, "dali", numbers, 4, position=Position(1, 0), **options)
    assert (again[0] == images[32:]).all()


@pytest.mark.parametrize("decoder", WINDOW, ids=["plain", "dali", "native"])
def test_the_window_reader_gives_notice_when_it_restarts_an_epoch(numbers, tmp_path, decoder):
    options = {**decoder, "reader": "window", "window": 50, "index_folder": tmp_path}
    whole = take(3, "dali", numbers, 4, position=Position(2, 0), **options)
    with loading("dali", numbers, 4, position=Position(2, 60), **options) as loader:
        assert loader.notice == (
            "data.reader=window: epoch 2 restarts at its first image, so 60 images that were "
            "already used are read a second time"
        )
        batches = list(islice(loader, 3))
    assert [b.after for b in batches] == whole[2] == [Position(2, 4 * i) for i in (1, 2, 3)]
    assert all((b.image.asnumpy() == image).all() for b, image in zip(batches, whole[0]))


def test_no_notice_if_no_image_is_read_twice(numbers, tmp_path):
    options = {"reader": "window", "index_folder": tmp_path}
    at_the_end = Position(2, 128)  # of 130: the next epoch begins
    for position, more in (
        (Position(2, 0), options),
        (at_the_end, options),
        (Position(2, 60), {}),
    ):
        with loading("dali", numbers, 4, position=position, **more) as loader:
            assert loader.notice == ""


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
def test_later_batches_do_not_overwrite_earlier_ones(faces, name, options):
    with loading(name, faces, 16, prefetch=2, **options) as loader:
        kept = list(islice(loader, 5))
        before = [(b.image.asnumpy(), b.label.asnumpy()) for b in kept]
        for _ in islice(loader, 10):
            pass
        for batch, (image, label) in zip(kept, before):
            assert (batch.image.asnumpy() == image).all()
            assert (batch.label.asnumpy() == label).all()
    assert len({image.tobytes() for image, _ in before}) == 5


@pytest.fixture(scope="module")
def damaged(make_records, make_face, tmp_path_factory):
    """Return ``damaged(key, jpeg)`` -> a set of 20 images with one replaced by ``jpeg``."""

    def make(key, jpeg):
        samples = [(i, make_face(i, 0)) for i in range(20)]
        samples[key - 1] = (key - 1, jpeg)
        folder = make_records(20, 1, samples=samples)
        return open_records(folder, tmp_path_factory.mktemp("scan"))

    return make


NO_JPEG = b"\xff\xd8" + bytes(range(200))
# Changes of a valid JPEG.  Some decoders accept truncated ones and invent the missing pixels.
DAMAGES = {
    "noise": lambda jpeg: NO_JPEG,
    "noise with an end": lambda jpeg: NO_JPEG + b"\xff\xd9",
    "cut off": lambda jpeg: jpeg[: len(jpeg) * 6 // 10],
    "zeros from the middle on": lambda jpeg: jpeg[: len(jpeg) // 2].ljust(len(jpeg), b"\0"),
    "without an end": lambda jpeg: jpeg[:-2],
}


@pytest.mark.parametrize(
    ("name", "options", "reader"),
    [
        (name, options, reader)
        for name, options in LOADERS
        for reader in ("random", "window")
        if reader == "random" or "cached" not in options
    ],
)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_image_that_cannot_be_decoded_is_refused_by_key(
    damaged, make_face, tmp_path, name, options, reader, damage
):
    records = damaged(7, damage(make_face(6, 0)))
    with loading(name, records, 4, reader=reader, index_folder=tmp_path, **options) as loader:
        for _ in range(2):  # a second call raises again and does not hang
            with pytest.raises(RecordError) as caught:
                list(islice(loader, 5))
            assert str(caught.value) == (
                f"{records.name}: the image of key 7 cannot be decoded; fix the record or leave "
                "its key out of the .idx"
            )


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_of_another_size_is_refused_by_key(damaged, make_face, name, options, batch_size):
    records = damaged(3, make_face(2, 0, (112, 96)))
    with loading(name, records, batch_size, **options) as loader:
        with pytest.raises(RecordError) as caught:
            list(islice(loader, 20))
    assert str(caught.value) == (
        f"{records.name}: the image of key 3 is 112x96 pixels, not 112x112; fix the record or "
        "leave its key out of the .idx"
    )


UNCLOSED = """
import sys
import ops
from pipeline import build_loader
from pipeline.records import open_records
ops.use("native")
loader = build_loader("dali", open_records(*sys.argv[1:]), 64, threads=2)
print(next(loader).image.shape, flush=True)
"""


@pytest.mark.parametrize("time", range(3))
def test_a_process_may_end_without_closing_its_loader(faces, tmp_path, time):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNCLOSED, str(faces.files[0].parent), tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=JOIN_SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, "(64, 3, 112, 112)\n"), done.stderr


def test_an_unknown_loader_is_refused(faces):
    with pytest.raises(ValueError, match=r"must be one of dali, cpu, synthetic, got 'torch'"):
        build_loader("torch", faces, 4)


@pytest.mark.parametrize(
    ("name", "options"), [*LOADERS, ("synthetic", {})], ids=[*LOADER_NAMES, "synthetic"]
)
@pytest.mark.parametrize("taken", [0, 2])
def test_closing_ends_a_thread_that_waits_for_the_consumer(faces, name, options, taken):
    before = set(threading.enumerate())
    with loading(name, faces, 16, **options) as loader:
        list(islice(loader, taken))
        (thread,) = {t for t in threading.enumerate() if t.name == "loader"} - before
        assert thread.is_alive()  # it waits until its queue has space
        closing = threading.Thread(target=loader.close)
        closing.start()
        closing.join(JOIN_SECONDS)
        thread.join(JOIN_SECONDS)
        assert not closing.is_alive() and not thread.is_alive()
    # ``loading`` closes it a second time.


@pytest.mark.parametrize(
    "options",
    [
        *DALI.values(),
        *({**options, **BLOCKS} for options in DALI.values()),
        *({**options, "reader": "window"} for options in WINDOW),
    ],
)
def test_a_closed_loader_leaves_no_open_file(faces, tmp_path, options):
    options = {**options, "index_folder": tmp_path}
    take(2, "dali", faces, 16, **options)  # opens the files that a process opens once
    gc.collect()
    gc.disable()  # files must be closed without it
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            take(2, "dali", faces, 16, **options)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_options_that_conflict_are_refused(faces, tmp_path):
    with pytest.raises(ValueError, match=r"^data\.loader: 'dali' needs a record set, got none; "):
        build_loader("dali", None, 4)
    with pytest.raises(ValueError, match=r"^data\.reader: must be one of random, .*, got 'disk'$"):
        build_loader("dali", faces, 4, reader="disk")
    cache = DecodedCache(faces, 100, tmp_path)
    with pytest.raises(ValueError) as caught:
        build_loader("dali", faces, 4, reader="window", cache=cache)
    assert str(caught.value) == (
        "data.decoded_cache_mib: the cache does not work with data.reader=window, got both; use "
        "data.reader=random or blocks, or set data.decoded_cache_mib=0"
    )
    cache.close()


def test_a_batch_may_be_the_whole_set_but_not_larger(faces):
    for name in ("dali", "cpu"):
        with pytest.raises(ValueError, match=r"data.batch_size: 50 x 3 ranks needs 150 images per"):
            build_loader(name, faces, 50, share=Share(0, 3), workers=0)
        with loading(name, faces, 130, workers=0) as loader:
            assert sorted(next(loader).label.asnumpy()) == sorted(faces.labels)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="^module 'pipeline' has no attribute 'make_loader'$"):
        pipeline.make_loader  # noqa: B018

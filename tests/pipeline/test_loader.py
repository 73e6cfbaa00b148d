# SPDX-License-Identifier: Apache-2.0
"""Batches: the right pictures, mirrored and normalised right, from every loader and reader."""

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
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.decode.cache import DecodedCache
from pipeline.loader import SYNTHETIC_STEPS, Share
from pipeline.records.open import RecordError, open_records
from pipeline.records.reader import RecordReader
from pipeline.sampling.augmentation import Augmentation, choose
from pipeline.sampling.batches import People
from pipeline.sampling.permutations import Position, block_order, epoch_order, rank_rows

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, IMAGES = 13, 10  # 130 images: no multiple of any batch used here
# Each way that batches are made; "operators" and "cached" are for ``loading`` below.
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
    return choose(Augmentation(), keys, seed, epoch, (112, 112)).mirror


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
    """Return the images, labels and positions of some batches, as NumPy."""
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
    """Return a picture that shows its own number, and on which side its left is."""
    cells = np.zeros((4, 4))
    cells[:, 0] = 1
    cells[:, 1:3] = np.array([row >> bit & 1 for bit in range(8)]).reshape(4, 2)
    image = np.kron(cells, np.ones((28, 28))) * 255
    return cv2.imencode(".jpg", image.astype(np.uint8))[1].tobytes()


def read_number(image: np.ndarray) -> tuple[int, bool]:
    """Return (row, mirrored) of a ``numbered`` picture, (3, 112, 112) normalised."""
    cells = (image.mean(0).reshape(4, 28, 4, 28).mean((1, 3)) > 0).astype(int)
    left, right = cells[:, 0], cells[:, 3]
    assert (left != right).all() and (left == left[0]).all(), cells
    bits = (cells if left[0] else cells[:, ::-1])[:, 1:3].reshape(-1)
    return sum(int(bit) << place for place, bit in enumerate(bits)), not left[0]


@pytest.fixture(scope="module")
def numbers(make_records, tmp_path_factory):
    """Return a set whose pictures show their rows, so that it can be seen which were read."""
    rows = range(PEOPLE * IMAGES)
    folder = make_records(PEOPLE, IMAGES, pictures=[(r // IMAGES, numbered(r)) for r in rows])
    return open_records(folder, tmp_path_factory.mktemp("scan"))


def seen_numbers(images, labels):
    """Return (row, mirrored) of every picture of some batches; labels are checked."""
    found = [read_number(i) for i in images.reshape(-1, *images.shape[2:])]
    assert [row // IMAGES for row, _ in found] == labels.reshape(-1).tolist()
    return found


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@READERS
def test_batches_are_what_sampling_says(numbers, name, options, reader):
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
def test_batches_of_people_are_what_sampling_says(numbers, name, options):
    # 13 people, in a set with identity records: an epoch is 3 steps of 2 ranks x 2 people.
    options = options | {"images_per_person": 4, "seed": 5}
    with loading(name, numbers, 8, **options) as loader:
        assert loader.images_per_epoch == 52
    ranks = [take(4, name, numbers, 8, share=Share(rank, 2), **options) for rank in range(2)]
    rows = np.array([[row for row, _ in seen_numbers(i, labels)] for i, labels, _ in ranks])
    rows = rows.reshape(2, 4, 8).swapaxes(0, 1).reshape(4, 16)
    order = People(numbers.labels, 5, 4).order
    assert (rows[:3].reshape(-1) == order(0)[:48]).all() and (rows[3] == order(1)[:16]).all()
    after = ranks[0][2]
    assert after == ranks[1][2] == [*(Position(0, 16 * i) for i in (1, 2, 3)), Position(1, 16)]
    tail = take(2, name, numbers, 8, position=after[1], **options)
    found = [row for row, _ in seen_numbers(*tail[:2])]
    assert found == [*order(0)[32:48]]  # one rank goes on where two were


def test_values_are_the_pixels_less_the_mean_over_the_deviation(faces):
    images, _, _ = take(2, "dali", faces, 16, augmentation=Augmentation(mirror=False))
    rows = epoch_order(len(faces), 1, 0)[:32]
    jpegs = RecordReader(faces).read(rows)
    pixels = np.stack([cv2.imdecode(j, cv2.IMREAD_COLOR)[:, :, ::-1] for j in jpegs])
    expected = (pixels.transpose(0, 3, 1, 2).astype(np.float64) - 127.5) / 128
    assert images.dtype == np.float32 and images.shape == (2, 16, 3, 112, 112)
    assert np.abs(images.reshape(32, 3, 112, 112) - expected).mean() < 1.5 / 128


@pytest.mark.parametrize("way", DALI.values(), ids=DALI)
def test_dali_equals_the_reference(faces, way):
    batches = 10  # into the second epoch
    ours, our_labels, our_places = take(batches, "dali", faces, 16, threads=2, prefetch=3, **way)
    theirs, their_labels, their_places = take(batches, "cpu", faces, 16, workers=0)
    assert (our_labels == their_labels).all()
    assert our_places == their_places
    difference = np.abs(ours - theirs).mean((2, 3, 4)) * 128 / 255
    flipped = np.abs(ours[..., ::-1] - theirs).mean((2, 3, 4)) * 128 / 255
    assert difference.max() <= 1.5 / 255
    assert flipped.min() > 3 / 255  # so a wrong mirror could not hide


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@READERS
@pytest.mark.parametrize("skipped", [3, 8, 11])
def test_from_a_position_on_batches_are_the_tail(faces, name, options, reader, skipped):
    options = options | reader
    images, labels, after = take(14, name, faces, 16, **options)
    position = after[skipped - 1]
    tail = take(14 - skipped, name, faces, 16, position=position, **options)
    assert (tail[0] == images[skipped:]).all()
    assert (tail[1] == labels[skipped:]).all()
    assert tail[2] == after[skipped:]


@pytest.mark.parametrize("way", WINDOW, ids=["plain", "dali", "native"])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 40, 1000])
def test_window_reader_covers_an_epoch(numbers, tmp_path, way, size, window):
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
                **way,
            )
            found = seen_numbers(images, labels)
            keys = numbers.keys[[row for row, _ in found]]
            assert [m for _, m in found] == mirrored(keys, seed, epoch).tolist()
            assert after[-1] == Position(epoch, steps * batch_size * size)
            rows += [row for row, _ in found]
        assert len(set(rows)) == len(rows)
        assert len(numbers) - len(rows) < batch_size * size
        assert window > 1 or size > 1 or rows == sorted(rows)


@pytest.mark.parametrize("way", WINDOW, ids=["plain", "dali", "native"])
def test_window_reader_goes_on_to_other_orders(numbers, tmp_path, way):
    options = {**way, "reader": "window", "window": 50, "index_folder": tmp_path}
    images, labels, after = take(64, "dali", numbers, 4, **options)
    epochs = [
        [row for row, _ in seen_numbers(images[part], labels[part])]
        for part in (slice(0, 32), slice(32, 64))
    ]
    assert [a.epoch for a in after] == [0] * 32 + [1] * 32
    assert epochs[0] != epochs[1]
    again = take(32, "dali", numbers, 4, position=Position(1, 0), **options)
    assert (again[0] == images[32:]).all()


@pytest.mark.parametrize("way", WINDOW, ids=["plain", "dali", "native"])
def test_window_reader_begins_the_epoch_again_and_says_so(numbers, tmp_path, way):
    options = {**way, "reader": "window", "window": 50, "index_folder": tmp_path}
    whole = take(3, "dali", numbers, 4, position=Position(2, 0), **options)
    with loading("dali", numbers, 4, position=Position(2, 60), **options) as loader:
        assert loader.notice == (
            "window reader: epoch 2 begins again, the 60 images already used of it are read twice"
        )
        batches = list(islice(loader, 3))
    assert [b.after for b in batches] == whole[2] == [Position(2, 4 * i) for i in (1, 2, 3)]
    assert all((b.image.asnumpy() == image).all() for b, image in zip(batches, whole[0]))


def test_no_notice_where_nothing_is_read_twice(numbers, tmp_path):
    options = {"reader": "window", "index_folder": tmp_path}
    at_the_end = Position(2, 128)  # of 130: the next one begins
    for position, more in (
        (Position(2, 0), options),
        (at_the_end, options),
        (Position(2, 60), {}),
    ):
        with loading("dali", numbers, 4, position=position, **more) as loader:
            assert loader.notice == ""


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
def test_batches_that_are_kept_stay_what_they_were(faces, name, options):
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
    """Return ``damaged(key, jpeg)`` -> a set of 20 pictures of which one is replaced."""

    def make(key, jpeg):
        pictures = [(i, make_face(i, 0)) for i in range(20)]
        pictures[key - 1] = (key - 1, jpeg)
        folder = make_records(20, 1, pictures=pictures)
        return open_records(folder, tmp_path_factory.mktemp("scan"))

    return make


NO_JPEG = b"\xff\xd8" + bytes(range(200))
# What becomes of a good picture.  One that was cut off is a picture to some decoders, which make up
# what is missing, each in its way.
DAMAGES = {
    "noise": lambda jpeg: NO_JPEG,
    "noise with an end": lambda jpeg: NO_JPEG + b"\xff\xd9",
    "cut off": lambda jpeg: jpeg[: len(jpeg) * 6 // 10],
    "zeros from the middle on": lambda jpeg: jpeg[: len(jpeg) // 2].ljust(len(jpeg), b"\0"),
    "without an end": lambda jpeg: jpeg[:-2],
}


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@pytest.mark.parametrize("reader", ["random", "window"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_picture_that_cannot_be_decoded_is_named(
    damaged, make_face, tmp_path, name, options, reader, damage
):
    if reader == "window" and "cached" in options:
        pytest.skip("there is no such loader")
    records = damaged(7, damage(make_face(6, 0)))
    with loading(name, records, 4, reader=reader, index_folder=tmp_path, **options) as loader:
        for _ in range(2):  # the second call says it again and does not hang
            with pytest.raises(RecordError) as caught:
                list(islice(loader, 5))
            assert str(caught.value) == (
                f"{records.name}: the picture of key 7 cannot be decoded; mend the record or leave "
                "its key out of the .idx"
            )


@pytest.mark.parametrize(("name", "options"), LOADERS, ids=LOADER_NAMES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_picture_of_another_size_is_named(damaged, make_face, name, options, batch_size):
    records = damaged(3, make_face(2, 0, (112, 96)))
    with loading(name, records, batch_size, **options) as loader:
        with pytest.raises(RecordError) as caught:
            list(islice(loader, 20))
    assert str(caught.value) == (
        f"{records.name}: the picture of key 3 is 112x96 pixels, not 112x112; mend the record or "
        "leave its key out of the .idx"
    )


@pytest.mark.parametrize("name", ["dali", "cpu"])
def test_a_batch_larger_than_the_set_is_refused(faces, name):
    with pytest.raises(ValueError) as caught:
        build_loader(name, faces, 50, share=Share(0, 3), workers=0)
    assert str(caught.value) == (
        f"data.batch_size: 50 x 3 ranks needs 150 images per step, got 130 in {faces.name}; lower "
        "data.batch_size or add data"
    )
    with loading(name, faces, 130, workers=0) as loader:  # the whole set at once is fine
        assert sorted(next(loader).label.asnumpy()) == sorted(faces.labels)


@pytest.fixture(scope="module")
def mixed(make_records, make_face, tmp_path_factory):
    """Return a set of pictures that the compiled decoder takes and of such that it leaves."""
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
        # In parts: the magic number stands in a comment.
        comment = b"\xff\xfe" + (2 + 2 * 7).to_bytes(2, "big") + b"\0\0" + magic * 3
        return jpeg[:2] + comment + jpeg[2:] if kind == "d" else jpeg

    folder = make_records(16, 4, pictures=[(i // 4, made(i)) for i in range(64)])
    return open_records(folder, tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("way", ["dali", "native", "cached", "cached dali"])
def test_pictures_that_the_compiled_decoder_leaves_are_decoded_all_the_same(mixed, way, batch_size):
    ops.use("native")
    assert (
        RecordReader(mixed, ops.loader_kernels()).find(np.arange(64))[1] == 0
    ).sum() == 8  # in parts
    count = 80 // batch_size + 1
    plain = take(count, "dali", mixed, batch_size, seed=3, **DALI["plain"])
    found = take(count, "dali", mixed, batch_size, seed=3, threads=2, **DALI[way])
    assert (found[0] == plain[0]).all() and (found[1] == plain[1]).all()


FORGOTTEN = """
import sys
import ops
from pipeline import build_loader
from pipeline.records import open_records
ops.use("native")
loader = build_loader("dali", open_records(*sys.argv[1:]), 64, threads=2)
print(next(loader).image.shape, flush=True)
"""


@pytest.mark.parametrize("time", range(3))
def test_a_process_that_ends_without_closing_its_loader_ends_well(faces, tmp_path, time):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORGOTTEN, str(faces.files[0].parent), tmp_path],
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
def test_closing_ends_the_thread_though_nobody_takes_its_batches(faces, name, options, taken):
    before = set(threading.enumerate())
    with loading(name, faces, 16, **options) as loader:
        list(islice(loader, taken))
        (thread,) = {t for t in threading.enumerate() if t.name == "loader"} - before
        assert thread.is_alive()  # it waits for room in its queue
        closing = threading.Thread(target=loader.close)
        closing.start()
        closing.join(JOIN_SECONDS)
        thread.join(JOIN_SECONDS)
        assert not closing.is_alive() and not thread.is_alive()
    # closed once more: that does no harm


@pytest.mark.parametrize("reader", [{}, BLOCKS, {"reader": "window"}], ids=["", "blocks", "window"])
@pytest.mark.parametrize("way", DALI)
def test_a_closed_loader_leaves_no_descriptor(faces, tmp_path, way, reader):
    if "window" in reader.get("reader", "") and "cached" in way:
        pytest.skip("there is no such loader")
    options = {**DALI[way], **reader, "index_folder": tmp_path}
    take(2, "dali", faces, 16, **options)  # what a process opens once
    gc.collect()
    gc.disable()  # nothing may wait for it
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            take(2, "dali", faces, 16, **options)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_synthetic_batches_are_one_batch_that_moves_on(faces):
    images, labels, after = take(9, "synthetic", faces, 16)
    assert images.shape == (9, 16, 3, 112, 112) and images.dtype == np.float32
    assert (images == images[0]).all() and (labels == labels[0]).all()
    assert -1 <= images.min() < -0.9 and 0.9 < images.max() < 1
    assert set(labels[0]) <= set(range(PEOPLE))
    assert after == [Position(0, 16 * i) for i in range(1, 9)] + [Position(1, 16)]
    other, _, _ = take(1, "synthetic", faces, 16, share=Share(1, 2))
    assert not (other[0] == images[0]).any()


def test_synthetic_batches_need_no_records():
    options = {"num_classes": 7, "image_size": (32, 24)}
    with loading("synthetic", None, 4, **options) as loader:
        assert loader.images_per_epoch == SYNTHETIC_STEPS * 4
        batch = next(loader)
    assert batch.image.shape == (4, 3, 32, 24)
    assert batch.label.asnumpy().max() < 7


def test_batches_lie_on_the_device_that_was_asked_for(faces):
    with loading("dali", faces, 4, ctx=mx.cpu(1)) as loader:
        batch = next(loader)
        assert batch.image.context == batch.label.context == mx.cpu(1)


@pytest.mark.parametrize(
    ("operators", "decode", "kind"),
    [("native", "cpu", {np.ndarray}), ("plain", "cpu", {list}), ("native", "native", set())],
)
def test_records_are_read_ahead_for_devices_other_than_the_cpu(
    faces, monkeypatch, operators, decode, kind
):
    asked, kinds = [], set()
    gather, read_ahead = RecordReader.gather, RecordReader.read_ahead

    def seen_gather(self, rows, memory=None):
        found = gather(self, rows, memory)
        kinds.add(type(found))
        return found

    def seen_read_ahead(self, rows):
        asked.append(rows)
        read_ahead(self, rows)

    monkeypatch.setattr(RecordReader, "gather", seen_gather)
    monkeypatch.setattr(RecordReader, "read_ahead", seen_read_ahead)
    ctx = mx.Context("cpu_shared", 0)  # there is no GPU; to the loader this is one
    images, labels, _ = take(3, "dali", faces, 16, ctx=ctx, operators=operators, decode=decode)
    assert kinds == kind  # in which DALI's decoder is given the pictures
    order = epoch_order(len(faces), 1, 0)
    assert (np.concatenate(asked)[:80] == order[:80]).all()  # two batches further
    expected = take(3, "dali", faces, 16, operators="plain")
    assert (images == expected[0]).all() and (labels == expected[1]).all()


# One loader per process, as in training: a second one would fork while the first one's threads are
# in the middle of MXNet, and its workers would wait for locks that nobody holds any more.
WORKERS = """
import sys
from itertools import islice
import numpy as np
from pipeline.loader import build_loader
from pipeline.records import RecordError, open_records

rec, folder, batch_size, workers = *sys.argv[1:3], *map(int, sys.argv[3:])
loader = build_loader("cpu", open_records(rec, folder), batch_size, workers=workers)
try:
    batches = list(islice(loader, 10))
    np.savez(f"{folder}/batches-{workers}.npz", images=[b.image.asnumpy() for b in batches],
             labels=[b.label.asnumpy() for b in batches], after=[b.after for b in batches])
except RecordError as error:
    print(error)
loader.close()
"""


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program of its own: workers are forked before MXNet or DALI have threads."""
    watch = "import faulthandler; faulthandler.dump_traceback_later(600, exit=True)\n"
    return subprocess.run(
        [sys.executable, "-c", watch + program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_worker_processes_make_the_same_batches(faces, tmp_path):
    images, labels, after = take(10, "cpu", faces, 16, workers=0)
    for workers in (1, 2):
        done = run_program(WORKERS, faces.files[0], tmp_path, 16, workers)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        with np.load(tmp_path / f"batches-{workers}.npz") as found:
            assert (found["images"] == images).all() and (found["labels"] == labels).all()
            assert found["after"].tolist() == [list(place) for place in after]


def test_worker_processes_name_the_bad_picture(damaged, tmp_path):
    bad = damaged(7, NO_JPEG).files[0]
    done = run_program(WORKERS, bad, tmp_path, 4, 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{bad}: the picture of key 7 cannot be decoded; mend the record or leave its key out of "
        "the .idx\n"
    )


def test_dali_refuses_to_be_loaded_after_horovod():
    done = run_program("import horovod.mxnet, pipeline.decode.dali")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pipeline.decode.dali: import it before connect() loads Horovod"
    )
    done = run_program("import pipeline.decode.dali, horovod.mxnet; print('both')")
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr

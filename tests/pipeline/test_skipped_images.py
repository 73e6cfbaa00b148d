# SPDX-License-Identifier: Apache-2.0
"""Bad images are skipped: every loader makes the same batches, also after a resume."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.decode.cache import DecodedCache
from pipeline.records import RecordError, open_records
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.bad_images import replacements
from pipeline.sampling.batches import Share
from pipeline.sampling.epoch_orders import Position, block_order, epoch_order

PEOPLE, IMAGES, BATCH = 8, 8, 8
BAD = {5: "damaged", 17: "cut off", 18: "small", 40: "record"}
SEED, COUNT, PERMITTED = 3, 12, 9  # 8 batches per epoch, so 12 batches end in the second epoch
BLOCKS = {"reader": "blocks", "block": 8, "window": 32}
LOADERS = {
    "dali": ("dali", {"decode": "cpu"}),
    "dali colours": ("dali", {"decode": "cpu", "augmentation": Augmentation(grey=1.0)}),
    "native": ("dali", {}),
    "native blocks": ("dali", BLOCKS),
    "native shift": ("dali", {"augmentation": Augmentation(shift=1)}),
    "cached": ("dali", {"cached": True}),
    "cached dali": ("dali", {"cached": True, "decode": "cpu"}),
    "cpu": ("cpu", {"workers": 0}),
}


def numbered(row: int, size: int = 112) -> bytes:
    """Return an image that shows its row number, alike after mirroring."""
    bits = np.array([row >> bit & 1 for bit in range(8)]).reshape(4, 2)
    cells = np.concatenate([bits, bits[:, ::-1]], axis=1)
    image = np.kron(cells, np.ones((size // 4, size // 4))) * 255
    return cv2.imencode(".jpg", image.astype(np.uint8))[1].tobytes()


def read_number(image: np.ndarray) -> int:
    cells = (image.mean(0).reshape(4, 28, 4, 28).mean((1, 3)) > 0).astype(int)
    return sum(int(bit) << place for place, bit in enumerate(cells[:, :2].reshape(-1)))


@pytest.fixture(scope="module")
def folder(make_records):
    """Return a folder of records with the bad images of BAD, without the damaged record."""
    samples = []
    for row in range(PEOPLE * IMAGES):
        jpeg = numbered(row, 56 if BAD.get(row) == "small" else 112)
        if BAD.get(row) == "damaged":
            jpeg = b"\xff\xd8" + bytes(range(200)) + b"\xff\xd9"
        elif BAD.get(row) == "cut off":
            jpeg = jpeg[: len(jpeg) // 2]
        samples.append((row // IMAGES, jpeg))
    return make_records(PEOPLE, IMAGES, samples=samples)


@pytest.fixture(scope="module")
def records(folder, tmp_path_factory):
    """Return the record set of ``folder``, in which a record was damaged after the opening."""
    folder = shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "set")
    found = open_records(folder, tmp_path_factory.mktemp("scan"))
    (row,) = (row for row, kind in BAD.items() if kind == "record")
    with (folder / "train.rec").open("r+b") as file:
        file.seek(int(found.offsets[row]))
        file.write(b"\0\0\0\0")  # instead of the magic number
    return found


def make_loader(records, name, position=Position(), permitted=PERMITTED, **options):
    kind, more = LOADERS[name]
    options |= more
    ops.use("native")
    if options.pop("cached", False):
        options["cache"] = DecodedCache(records, 100)
    options |= {"seed": SEED, "position": position, "permitted_bad_images": permitted}
    return build_loader(kind, records, BATCH, **options)


def take(count, records, name, **options):
    loader = make_loader(records, name, **options)
    try:
        return list(islice(loader, count))
    finally:
        loader.close()


def expected_batches(records, blocks):
    """Return (rows, bad rows) of each batch, from the order of the epochs and the bad rows."""
    for epoch in (0, 1):
        order = (
            block_order(len(records), SEED, epoch, 8, 32)
            if blocks
            else epoch_order(len(records), SEED, epoch)
        )
        for start in range(0, len(records), BATCH):
            rows = order[start : start + BATCH]
            bad = np.isin(rows, list(BAD))
            yield rows[replacements(bad, records.labels[rows])].tolist(), rows[bad].tolist()


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_replaces_the_same_images(records, name):
    batches = take(COUNT, records, name)
    expected = list(islice(expected_batches(records, "blocks" in name), COUNT))
    for batch, (rows, bad) in zip(batches, expected, strict=True):
        assert [read_number(image) for image in batch.image.asnumpy()] == rows
        assert batch.label.asnumpy().tolist() == [row // IMAGES for row in rows]
        assert [image.id for image in batch.skipped] == [row + 1 for row in bad]
        for image, row in zip(batch.skipped, bad, strict=True):
            assert f"key {row + 1}" in image.problem and "train.rec" in image.problem
    assert sum(len(bad) for _, bad in expected) > len(BAD)  # some in the second epoch too


@pytest.mark.parametrize("name", ["dali", "native", "native blocks", "cpu"])
def test_a_resumed_loader_makes_the_same_batches(records, name):
    whole = take(COUNT, records, name)
    for first in (3, 7):
        rest = take(COUNT - first, records, name, position=whole[first - 1].after)
        for one, other in zip(rest, whole[first:], strict=True):
            assert (one.image.asnumpy() == other.image.asnumpy()).all()
            assert (one.label.asnumpy() == other.label.asnumpy()).all()
            assert (one.after, one.skipped) == (other.after, other.skipped)


def test_ranks_skip_the_bad_images_of_their_own_batches(records):
    found = []
    for rank in (0, 1):
        batches = take(4, records, "native", share=Share(rank, 2))
        found += [image.id - 1 for batch in batches for image in batch.skipped]
    assert sorted(found) == sorted(BAD)


@pytest.mark.parametrize("name", ["dali", "native", "cached", "cpu"])
def test_too_many_bad_images_end_the_loader_with_one_sentence(records, name):
    with pytest.raises(RecordError, match="^data.max_bad_fraction: permits 2 bad images of 64, "):
        take(COUNT, records, name, permitted=2)


@pytest.mark.parametrize("name", ["dali", "native", "cached", "cpu"])
def test_without_skipping_the_first_bad_image_is_the_error(records, name):
    with pytest.raises(RecordError, match=r"(?=.*key \d+).*(cannot be|is cut|56x56|no complete)"):
        take(COUNT, records, name, permitted=None)


def test_the_window_reader_skips_with_the_native_decoder_and_refuses_dali(records):
    options = {"reader": "window", "window": 16}
    batches = take(8, records, "native", **options)
    assert {image.id - 1 for batch in batches for image in batch.skipped} == set(BAD)
    with pytest.raises(ValueError, match=r"^data.on_bad_image: 'skip' cannot replace .*; use "):
        make_loader(records, "dali", **options)


PROGRAM = """
import sys
from itertools import islice
from pipeline import build_loader
from pipeline.records import open_records

loader = build_loader(
    "cpu", open_records(sys.argv[1], sys.argv[2]), 8, seed=3, workers=2, permitted_bad_images=9
)
print([sorted(image.id - 1 for image in batch.skipped) for batch in islice(loader, 8)])
loader.close()
"""


def test_worker_processes_skip_bad_images(folder, tmp_path):
    # One loader per process: a second one would fork while MXNet has threads.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, tmp_path],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    bad = {row for row, kind in BAD.items() if kind != "record"}
    order = epoch_order(PEOPLE * IMAGES, SEED, 0).reshape(8, BATCH)
    expected = [sorted(bad & set(rows.tolist())) for rows in order]
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr

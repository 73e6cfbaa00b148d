# SPDX-License-Identifier: Apache-2.0
"""Several record sets as one, dropped people, and the cached index of large sets."""

from __future__ import annotations

import os
import shutil
from itertools import islice

import cv2
import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.records import RecordError, open_records
from pipeline.records import open as records_module
from pipeline.records.reader import RecordReader
from pipeline.sampling.augmentation import NO_AUGMENTATION
from pipeline.sampling.batches import Share


@pytest.fixture(scope="module")
def sets(make_face, make_records):
    """Return two sets, 3 people x 4 images and 4 people x 2 with a gap, and their samples."""
    first = [(p, make_face(p, i)) for p in range(3) for i in range(4)]
    second = [(p, make_face(10 + p, i)) for p in (0, 1, 3) for i in range(2)]
    folders = [
        make_records(3, 4, samples=first),
        make_records(4, 2, samples=second, header=False),
    ]
    return folders, [first, second]


def test_two_sets_are_joined_one_after_the_other(sets, tmp_path):
    folders, (first, second) = sets
    records = open_records(folders, tmp_path)
    assert len(records) == 18 and records.num_classes == 7
    samples = [a.tobytes() for a in RecordReader(records).read(np.arange(18))]
    assert samples == [jpeg for _, jpeg in first + second]
    assert records.labels.tolist() == [p for p, _ in first] + [3 + p for p, _ in second]
    assert records.files == tuple(folder / "train.rec" for folder in folders)
    mixed = np.array([17, 0, 12, 5, 13, 11])
    read = [a.tobytes() for a in RecordReader(records).read(mixed)]
    assert read == [samples[i] for i in mixed]
    for label, (place, there) in zip(records.labels, records.origins[records.labels], strict=True):
        assert label == there + 3 * place


def test_sets_may_share_their_labels(sets, tmp_path):
    folders, (first, second) = sets
    records = open_records(folders, tmp_path, labels="shared")
    assert records.num_classes == 4 and records.origins is None
    assert records.labels.tolist() == [p for p, _ in first + second]


@pytest.mark.parametrize(
    ("labels", "kept", "images"),
    [
        # Stacked: each person of the second set has two images.
        ("stacked", [(0, 0), (0, 1), (0, 2)], 12),
        # Shared: the people have 6, 6, 4 and 2 images.
        ("shared", [(-1, 0), (-1, 1)], 12),
    ],
)
def test_images_filter_counts_images_of_all_sets(sets, tmp_path, labels, kept, images):
    folders, _ = sets
    least = 4 if labels == "stacked" else 5
    records = open_records(folders, tmp_path, labels=labels, images_filter=least)
    assert [tuple(origin) for origin in records.origins.tolist()] == kept
    assert records.num_classes == len(kept) and len(records) == images
    assert np.bincount(records.labels, minlength=len(kept)).min() >= least
    whole = open_records(folders, tmp_path, labels=labels)
    assert (
        records.origins[records.labels, 1]
        == whole.labels[np.isin(whole.ids(np.arange(18)), records.ids(np.arange(images)))]
    ).all()


def test_images_filter_closes_gaps_of_one_set(sets, tmp_path):
    folders, (_, second) = sets
    records = open_records(folders[1], tmp_path, images_filter=1)
    assert records.num_classes == 3
    assert records.origins.tolist() == [[0, 0], [0, 1], [0, 3]]
    assert records.origins[records.labels, 1].tolist() == [p for p, _ in second]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("operators", ["plain", "native"])
def test_an_epoch_covers_every_image_of_both_sets(sets, tmp_path, size, operators):
    ops.use(operators)
    folders, samples = sets
    records = open_records(folders, tmp_path)
    seen = []
    for rank in range(size):
        loader = build_loader(
            "dali", records, 3, share=Share(rank, size), augmentation=NO_AUGMENTATION
        )
        for batch in islice(loader, 18 // (3 * size)):
            seen += zip(batch.label.asnumpy().tolist(), batch.image.asnumpy(), strict=True)
        loader.close()
    expected = []
    for begin, part in zip((0, 3), samples):
        for label, jpeg in part:
            pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
            expected.append((begin + label, (pixels.transpose(2, 0, 1) - 127.5) / 128))
    left = list(expected)
    for label, image in seen:
        near = [i for i, (_, other) in enumerate(left) if np.abs(other - image).mean() < 2 / 128]
        assert len(near) == 1 and left[near[0]][0] == label
        left.pop(near[0])
    assert not left


def refusal(paths, folder, **options) -> str:
    with pytest.raises(RecordError) as caught:
        open_records(paths, folder, **options)
    return str(caught.value)


def test_sets_that_do_not_fit_together_are_refused(sets, make_face, make_records, tmp_path):
    folders, _ = sets
    narrow = make_records(1, 1, image_size=(112, 96))
    assert refusal([folders[0], narrow], tmp_path) == (
        f"{narrow}/train.rec: the images are 112x96 pixels, got 112x112 in "
        f"{folders[0]}/train.rec; all sets of a run need images of one size"
    )
    again = folders[1] / ".." / folders[1].name
    assert refusal([folders[1], folders[0], again], tmp_path) == (
        f"data.records: record set listed twice, got {again}/train.rec; name each set once"
    )
    assert refusal(folders, tmp_path, images_filter=9) == (
        f"data.images_filter: no identity in {folders[0]}/train.rec, {folders[1]}/train.rec has 9 "
        "images, got at most 4 images per identity; lower data.images_filter"
    )


def test_the_index_of_a_large_set_is_cached(sets, tmp_path, monkeypatch):
    folders, (first, _) = sets
    folder = tmp_path / "set"
    shutil.copytree(folders[0], folder)
    monkeypatch.setattr(records_module, "MIN_CACHED_RECORDS", 12)
    before = open_records(folder, tmp_path / "kept")
    (_,) = (tmp_path / "kept").iterdir()

    def parse(idx):
        raise AssertionError("parsed again")

    with monkeypatch.context() as patched:
        patched.setattr(records_module, "read_index", parse)
        after = open_records(folder, tmp_path / "kept")
    for name in ("file", "keys", "offsets", "labels"):
        assert (getattr(before, name) == getattr(after, name)).all()
        assert getattr(before, name).dtype == getattr(after, name).dtype
    assert before.num_classes == after.num_classes
    # num_classes is still checked against the labels.
    assert refusal(folder, tmp_path / "kept", num_classes=2) == (
        f"{folder}/train.rec: label 2 in the record of key 9 is out of range, got num_classes=2; "
        "labels must be whole numbers in 0..1"
    )
    # A changed .idx is parsed again: three images fewer.
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:10] + lines[13:]))
    os.utime(folder / "train.idx", ns=(0, 0))
    assert len(open_records(folder, tmp_path / "kept")) == len(first) - 3

# SPDX-License-Identifier: Apache-2.0
"""Loaders on small sets: all rows, from memory and from the disk; what is held of large ones."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from benchmarks.harness import record_set
from benchmarks.harness.process import CORES
from benchmarks.harness.worker import LeftOut
from benchmarks.loader_throughput import OURS, cold_group, group, prepared
from benchmarks.steps import loader_steps
from benchmarks.steps.record_dataset import RecordDataset, ends_with_picture
from pipeline.decode.cache import CacheError
from pipeline.records.index_cache import write_image_index
from pipeline.records.open import open_records
from pipeline.records.writer import write_record_set
from tests.benchmarks.test_steps import FOLDER, GLUONFR, names, run

FEW = 50


@pytest.fixture(scope="module")
def few_records(make_records) -> Path:
    """Return a folder with fewer images than a batch usually has."""
    return make_records(10, FEW // 10)


def test_all_rows_of_a_set_that_is_smaller_than_a_batch(few_records, tmp_path, monkeypatch):
    monkeypatch.chdir(few_records.parent)  # others run elsewhere: the path must still be found
    words = ["--quick", "--records", few_records.name]
    only = "^ours|^gluon.* cv2 workers=0|^imagerec|^limit [dc]" + ("|^limit raw" if GLUONFR else "")
    rows, out = run("loader_throughput", tmp_path / "rows.json", *words, "--only", only)
    assert f"batches of {FEW}, not 128" in out
    assert all(row["images_per_second"] > 0 and "cold" not in row for row in rows)
    left = [line.split(": ") for line in out.splitlines() if line.startswith("left out: ")]
    expected = [*OURS, "ours decoded-cache", "gluon dataloader cv2 workers=0"]
    expected += [f"imagerecorditer threads={CORES}", f"imagerecorditer threads=1 parts={CORES}"]
    expected += ["limit dali-decode", "limit convert"]
    assert {*names(rows), *(name for _, name, *_ in left)} >= set(expected)
    why = {name: reason for _, name, reason, *_ in left}
    assert set(why) <= {expected[6]}, why  # too few images for parts


@pytest.mark.parametrize("named", ["", "train.rec"])
def test_rows_from_the_disk(few_records, tmp_path, named):
    rec = few_records / "train.rec"
    dropped(rec)
    words = ["--cold", "--quick", "--records", few_records / named, "--batch", 8, "--rounds", 2]
    words += ["--only", "^ours"]
    rows, out = run("loader_throughput", tmp_path / "rows.json", *words)
    assert names(rows) == list(OURS) and "from the disk" in out
    assert all(row["cold"] and row["rounds"] == row["steps"] == 2 for row in rows)
    # All of it in each turn: nothing was left in memory, neither at first nor after the others.
    assert all(row["disk_mib"] > 0.9 * rec.stat().st_size / 2**20 for row in rows)


def dropped(rec: Path) -> None:
    """Let go of a file's pages, or skip the test."""
    try:
        loader_steps._drop(rec)
    except RuntimeError:
        pytest.skip("this file system keeps its files in memory")


def test_what_is_dropped_is_not_in_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    assert loader_steps.in_memory(path) == 1
    dropped(path)
    assert loader_steps.in_memory(path) <= loader_steps.MOST_IN_MEMORY


def test_turns_from_the_disk_are_an_epoch(tmp_path, monkeypatch):
    pictures = tmp_path / "pictures.rec"
    pictures.with_suffix(".idx").write_text("0\t0\n" * 100)
    candidates = cold_group(tmp_path, pictures, 8)
    assert [candidate.name for candidate in candidates] == list(OURS)
    assert {candidate.images for candidate in candidates} == {96}
    monkeypatch.setattr("benchmarks.loader_throughput.COLD_IMAGES", 50)
    assert {candidate.images for candidate in cold_group(tmp_path, pictures, 8)} == {48}


def test_a_baseline_has_all_cores(tmp_path):
    found = [candidate.name for candidate in group(tmp_path, tmp_path / "pictures.rec", 4)]
    assert found[0] == "ours random-access" and len(found) == len(set(found))
    for name in (f"threads={CORES}", f"threads={2 * CORES}", f"threads=1 parts={CORES}"):
        assert f"imagerecorditer {name}" in found


def test_parts_of_the_iterator_are_the_whole_set(tiny_records, tmp_path):
    pictures = tmp_path / "pictures.rec"
    write_image_index(open_records(tiny_records, tmp_path), pictures.with_suffix(".idx"))
    pictures.symlink_to(tiny_records / "train.rec")
    data = RecordDataset(str(pictures), loader_steps.MEAN, loader_steps.STD)
    sums = {round(float(cv2.norm(data.pixels(i)[0], cv2.NORM_L1))) for i in range(len(data))}
    batches = loader_steps._iterators(pictures, str(tmp_path), 30, 2)
    seen = [next(batches).asnumpy() for _ in range(4)]
    pixels = np.concatenate(seen) * loader_steps.STD + loader_steps.MEAN
    assert pixels.shape == (120, 3, 112, 112)
    found = {round(float(total)) for total in pixels.sum((1, 2, 3), dtype=np.float64)}
    assert len(found) == len(sums) == 120
    # The decoders differ by rounding; pictures differ by more.
    assert max(min(abs(f - s) / s for s in sums) for f in found) < 0.01


def test_identity_records_are_cut_off_for_those_whom_they_stop(tiny_records, tmp_path):
    pictures = tmp_path / "pictures.rec"
    write_image_index(open_records(tiny_records, tmp_path), pictures.with_suffix(".idx"))
    pictures.symlink_to(tiny_records / "train.rec")
    copy = ends_with_picture(pictures, 100)
    assert copy != pictures and ends_with_picture(pictures, 100) == copy
    assert ends_with_picture(copy, 100) == copy  # there is nothing to cut off
    ours, others = (RecordDataset(str(rec), 0.0, 1.0) for rec in (pictures, copy))
    assert len(others) == 100
    for i in (0, 50, 99):
        assert np.array_equal(ours.pixels(i)[0], others.pixels(i)[0])


def test_of_large_sets_pictures_from_all_over_are_held(tiny_records, tmp_path):
    records = open_records(tiny_records, tmp_path)
    few = loader_steps.few_of(records, 12)
    assert len(few) == 12 and few.num_classes == records.num_classes
    assert len(np.unique(few.labels)) == 12 and set(few.keys) <= set(records.keys)
    assert loader_steps.few_of(records, 120) is records


def test_a_label_in_a_vector_is_read(tmp_path, make_face):
    write_record_set(tmp_path, [(0, make_face(0, 0)), (3, make_face(3, 0))], 4, vector_labels=True)
    with prepared(tmp_path, 2) as (_, pictures, batch):
        data = RecordDataset(str(pictures), 0.0, 1.0)
        assert batch == 2 and [data[i][1] for i in range(len(data))] == [0, 3]


@pytest.mark.parametrize("kind", ["raw", "convert"])
def test_limits_of_a_set_that_is_smaller_than_a_group(few_records, tmp_path, kind):
    ops.use("auto")
    batches = loader_steps.SOURCES[kind](few_records, str(tmp_path), 8, 0)
    try:
        assert len(list(islice(batches, 200))) == 200
    except LeftOut as reason:
        pytest.skip(str(reason))


def test_a_cache_that_does_not_fit_is_left_out(few_records, tmp_path, monkeypatch):
    def full(*arguments):
        raise CacheError("no room")

    monkeypatch.setattr("pipeline.decode.cache.DecodedCache", full)
    with pytest.raises(LeftOut, match="no room"):
        next(loader_steps.SOURCES["cache"](few_records, str(tmp_path), 8, 0))


def test_the_repeated_set_has_all_pictures_several_times(tmp_path):
    made = record_set.made_set(tmp_path / "once", 40)
    repeated = record_set.repeated_set(made, tmp_path / "often", 3)
    once, often = (open_records(path, tmp_path) for path in (made, repeated))
    assert len(often) == 120 and len(np.unique(often.keys)) == 120
    assert often.labels.tolist() == 3 * once.labels.tolist()
    size = (made / "train.rec").stat().st_size
    assert often.offsets.tolist() == [t * size + o for t in range(3) for o in once.offsets]
    assert record_set.repeated_set(made, tmp_path / "often", 9) == repeated  # not made again
    assert len(open_records(repeated, tmp_path)) == 120


def test_the_window_of_a_large_set_is_that_of_the_configuration():
    from launch.config.sections import DataConfig

    assert loader_steps.WINDOW == DataConfig.window


def test_the_interpreter_of_others_needs_nothing_of_ours():
    code = "import sys; from benchmarks import record_dataset, worker; "
    code += "print(sorted(name for name in sys.modules if name in ('mxnet', 'nvidia.dali')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

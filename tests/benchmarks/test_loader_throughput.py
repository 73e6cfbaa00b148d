# SPDX-License-Identifier: Apache-2.0
"""Rows of the loader benchmark, from memory and from disk."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from benchmarks.harness.process import CORES
from benchmarks.loader_throughput import OURS, TORCH, cold_group, group
from tests.benchmarks.steps.test_page_cache import dropped
from tests.benchmarks.test_steps import names, run

FEW = 50


@pytest.fixture(scope="module")
def few_records(make_records) -> Path:
    """Return a record set with fewer images than the default batch."""
    return make_records(10, FEW // 10)


def test_a_set_smaller_than_a_batch_reduces_the_batch_size(few_records, tmp_path, monkeypatch):
    monkeypatch.chdir(few_records.parent)  # candidates have another working directory
    words = ["--quick", "--records", few_records.name]
    only = "^ours random-access$|parts="
    rows, out = run("loader_throughput", tmp_path / "rows.json", *words, "--only", only)
    assert f"batches have {FEW} images, not 128" in out
    assert names(rows)[0] == "ours random-access"
    assert all(row["images_per_second"] > 0 and "cold" not in row for row in rows)
    parts = f"imagerecorditer threads=1 parts={CORES}"
    assert names(rows)[1:] == ([parts] if CORES == 1 else [])
    left_out = f"the set has {FEW} images, so each of its {CORES} parts is smaller than a batch"
    assert CORES == 1 or f"left out: {parts}: {left_out}" in out


def test_the_settings_of_every_row_match_its_build_function(tmp_path):
    rows = group(tmp_path, tmp_path / "images.rec", 4)
    rows += cold_rows(tmp_path)
    assert TORCH in {row.module for row in rows}
    for row in rows:
        build = importlib.import_module(row.module).build
        inspect.signature(build).bind(**row.settings)


def cold_rows(folder: Path, batch: int = 8):
    image_rec = folder / "images.rec"
    image_rec.with_suffix(".idx").write_text("0\t0\n" * 100)
    return cold_group(folder, image_rec, batch)


@pytest.mark.parametrize("named, ours", [("", list(OURS)), ("train.rec", ["ours blocks"])])
def test_every_turn_from_disk_reads_the_whole_file(few_records, tmp_path, named, ours):
    rec = few_records / "train.rec"
    dropped(rec)
    words = ["--cold", "--quick", "--records", few_records / named, "--batch", 8, "--rounds", 2]
    words += ["--only", "|".join(ours)]
    rows, out = run("loader_throughput", tmp_path / "rows.json", *words)
    assert names(rows) == ours and "from the disk" in out
    assert all(row["cold"] and row["rounds"] == row["steps"] == 2 for row in rows)
    assert all(row["disk_mib"] > 0.9 * rec.stat().st_size / 2**20 for row in rows)


def test_a_turn_from_disk_is_an_epoch_of_limited_size(tmp_path, monkeypatch):
    candidates = cold_rows(tmp_path)
    assert [candidate.name for candidate in candidates] == list(OURS)
    assert {candidate.images for candidate in candidates} == {96}
    monkeypatch.setattr("benchmarks.loader_throughput.MAX_COLD_IMAGES", 50)
    assert {candidate.images for candidate in cold_rows(tmp_path)} == {48}


def test_imagerecorditer_has_rows_with_all_cores(tmp_path):
    found = [candidate.name for candidate in group(tmp_path, tmp_path / "images.rec", 4)]
    assert found[0] == "ours random-access" and len(found) == len(set(found))
    for name in (f"threads={CORES}", f"threads={2 * CORES}", f"threads=1 parts={CORES}"):
        assert f"imagerecorditer {name}" in found

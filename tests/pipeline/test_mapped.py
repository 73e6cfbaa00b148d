# SPDX-License-Identifier: Apache-2.0
"""A file that becomes shorter while it is read: one sentence that names it, never a bus error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = os.sysconf("SC_PAGESIZE")
BLOCKS = {"reader": "blocks", "block": 8, "window": 40}
WINDOW = {"reader": "window", "window": 20}
# Each way from the records to a batch; "operators" and "cached" are for the program below.
WAYS = {
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
from pipeline import mapped
from pipeline.augmentation import Augmentation
from pipeline.decoded_cache import DecodedCache
from pipeline.loader import build_loader
from pipeline.records import RecordError, open_records

folder, guarded, before, size, options = *map(Path, sys.argv[1:2]), *map(json.loads, sys.argv[2:])
if not guarded:  # a host without a compiler
    ops.guard = lambda: None
    import pipeline.loader
    pipeline.loader.guard = ops.guard
ops.use(options.pop("operators"))
(folder / "scan").mkdir()
records = open_records(folder, folder / "scan")
cached = options.pop("cached", False)
cache = DecodedCache(records, 100, folder / "scan") if cached else None
augmentation = Augmentation(shift=options.pop("shift", 0), color_jitter=options.pop("color", 0.0))
options |= {"augmentation": augmentation, "index_folder": folder / "scan", "cache": cache}
loader = build_loader(options.pop("name", "dali"), records, 8, **options)
try:
    for number, batch in enumerate(loader):
        if number == before:
            os.truncate(folder / "train.rec", size)
        assert batch.image.asnumpy().std() > 0.1, "a batch of zeros"
        assert number < before + 2000, "nothing was said"
except RecordError as error:
    print(error)
loader.close()
"""


def shortened(folder, before, size, options, guarded=True):
    """Run a loader whose file is cut off to ``size`` after some batches; return what it says."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, *map(json.dumps, (guarded, before, size, options))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


@pytest.fixture
def folder(make_records, tmp_path):
    return shutil.copytree(make_records(13, 10), tmp_path / "set")


def sentence(rec, size, whole):
    return (
        f"{rec}: became shorter while it was read, got {size} bytes where {whole} were mapped; "
        "copy it again and give the same command\n"
    )


@pytest.mark.parametrize("way", WAYS)
def test_every_way_names_the_file_that_became_shorter(folder, way):
    rec = folder / "train.rec"
    whole = rec.stat().st_size
    half = whole // 2 // PAGE * PAGE + 100  # in the middle of a page: its rest is zeros
    assert shortened(folder, 2, half, WAYS[way]) == sentence(rec, half, whole)


@pytest.mark.parametrize("way", ["native", "dali window", "plain", "cpu workers"])
def test_nothing_is_left_of_the_file(folder, way):
    whole = (folder / "train.rec").stat().st_size
    said = shortened(folder, 0, 0, WAYS[way])
    assert said == sentence(folder / "train.rec", 0, whole)


@pytest.mark.parametrize("way", ["plain", "plain window", "cpu"])
def test_without_a_compiler(folder, way):
    whole = (folder / "train.rec").stat().st_size
    said = shortened(folder, 1, PAGE, WAYS[way], guarded=False)
    assert said == sentence(folder / "train.rec", PAGE, whole)

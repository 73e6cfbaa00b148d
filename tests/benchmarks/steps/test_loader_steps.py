# SPDX-License-Identifier: Apache-2.0
"""Every loader source runs, also on a set smaller than a group of batches."""

from __future__ import annotations

from pathlib import Path

import pytest

import ops
from benchmarks.harness.record_set import prepared_set
from benchmarks.harness.worker import LeftOut
from benchmarks.steps.loader_steps import IMAGE_REC_SOURCES, SOURCES, build

FEW = 50
MISSING = {  # reason if a package or the compiled operators are missing
    "raw": "simplejpeg cannot be imported: ",
    "native": "the native operators are not compiled",
    "convert": "the native operators are not compiled",
}


@pytest.fixture(scope="module")
def few_records(make_records) -> Path:
    """Return a record set with fewer images than the default batch."""
    return make_records(10, FEW // 10)


@pytest.mark.parametrize("kind", [*SOURCES, *IMAGE_REC_SOURCES])
def test_every_loader_runs_on_a_set_of_one_batch(few_records, kind):
    ops.use("auto")
    # An upper bound decodes a group of batches, which has more images than the set.
    most_images = 8 if kind in MISSING else FEW
    with prepared_set(few_records, most_images) as (records, image_rec, batch):
        settings = {"records": str(records), "image_rec": str(image_rec), "batch": batch}
        settings |= {"scratch": str(image_rec.parent), "batches": 10}
        if kind == "iterators":
            with pytest.raises(LeftOut, match="50 images, so each of its 2 parts is smaller"):
                build(kind=kind, workers=2, **settings)
            return
        try:
            work = build(kind=kind, workers=0 if kind in ("transforms", "cv2") else 1, **settings)
        except LeftOut as reason:
            assert str(reason).startswith(MISSING[kind])
            return
        work.begin()
        assert work.step(lambda: None) == 0.0
        assert "mxnet" in work.versions

# SPDX-License-Identifier: Apache-2.0
"""The baselines read the whole set."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.harness.inputs import MEAN, STD
from benchmarks.steps.loaders_baselines import record_iterators
from benchmarks.steps.record_dataset import RecordDataset
from pipeline.records import open_records
from pipeline.records.index_cache import write_image_index


def test_the_iterators_read_the_whole_set_together(tiny_records, tmp_path):
    image_rec = tmp_path / "images.rec"
    write_image_index(open_records(tiny_records, tmp_path), image_rec.with_suffix(".idx"))
    image_rec.symlink_to(tiny_records / "train.rec")
    data = RecordDataset(str(image_rec), MEAN, STD)
    sums = {round(float(cv2.norm(data.pixels(i)[0], cv2.NORM_L1))) for i in range(len(data))}
    batches = record_iterators(image_rec, str(tmp_path), 30, 2)
    seen = [next(batches).asnumpy() for _ in range(4)]
    pixels = np.concatenate(seen) * STD + MEAN
    assert pixels.shape == (120, 3, 112, 112)
    found = {round(float(total)) for total in pixels.sum((1, 2, 3), dtype=np.float64)}
    assert len(found) == len(sums) == 120
    # The decoders differ by rounding; images differ by more.
    assert max(min(abs(f - s) / s for s in sums) for f in found) < 0.01

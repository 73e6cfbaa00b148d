# SPDX-License-Identifier: Apache-2.0
"""The dataset for other frameworks reads our record sets and imports none of our libraries."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.harness.baselines import ROOT
from benchmarks.harness.record_set import prepared_set
from benchmarks.steps.record_dataset import RecordDataset, without_trailing_records
from pipeline.records import open_records
from pipeline.records.index_cache import write_image_index
from pipeline.records.writer import write_record_set


def test_records_after_the_last_image_are_left_out_of_the_copy(tiny_records, tmp_path):
    image_rec = tmp_path / "images.rec"
    write_image_index(open_records(tiny_records, tmp_path), image_rec.with_suffix(".idx"))
    image_rec.symlink_to(tiny_records / "train.rec")
    copy = without_trailing_records(image_rec, 100)
    assert copy != image_rec and without_trailing_records(image_rec, 100) == copy
    assert without_trailing_records(copy, 100) == copy  # the last record is an image already
    ours, others = (RecordDataset(str(rec), 0.0, 1.0) for rec in (image_rec, copy))
    assert len(others) == 100
    for i in (0, 50, 99):
        assert np.array_equal(ours.pixels(i)[0], others.pixels(i)[0])


def test_the_first_number_of_a_vector_label_is_read(tmp_path, make_face):
    write_record_set(tmp_path, [(0, make_face(0, 0)), (3, make_face(3, 0))], 4, vector_labels=True)
    with prepared_set(tmp_path, 2) as (_, image_rec, batch):
        data = RecordDataset(str(image_rec), 0.0, 1.0)
        assert batch == 2 and [data[i][1] for i in range(len(data))] == [0, 3]


def test_the_dataset_imports_neither_mxnet_nor_dali():
    code = "import sys; import benchmarks.harness.worker, benchmarks.steps.record_dataset; "
    code += "print(sorted(name for name in sys.modules if name in ('mxnet', 'nvidia.dali')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

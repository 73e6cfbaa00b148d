# SPDX-License-Identifier: Apache-2.0
"""Record sets of the loader benchmarks."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import record_set
from pipeline.records import open_records


def test_the_repeated_set_has_several_copies_of_each_image(tmp_path):
    source = record_set.synthetic_set(tmp_path / "once", 40)
    repeated = record_set.repeated_set(source, tmp_path / "often", 3)
    once, often = (open_records(path, tmp_path) for path in (source, repeated))
    assert len(often) == 120 and len(np.unique(often.keys)) == 120
    assert often.labels.tolist() == 3 * once.labels.tolist()
    size = (source / "train.rec").stat().st_size
    assert often.offsets.tolist() == [t * size + o for t in range(3) for o in once.offsets]
    assert (
        record_set.repeated_set(source, tmp_path / "often", 9) == repeated
    )  # the set exists already
    assert len(open_records(repeated, tmp_path)) == 120

# SPDX-License-Identifier: Apache-2.0
"""Subsets of large sets, a decoded cache that does not fit, and the default window."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.worker import LeftOut
from benchmarks.steps.loaders_ours import WINDOW_IMAGES, cached, subset
from launch.config.sections import DataConfig
from pipeline.decode.cache import CacheError
from pipeline.records import open_records


def test_a_subset_is_spread_evenly_over_the_set(tiny_records, tmp_path):
    records = open_records(tiny_records, tmp_path)
    few = subset(records, 12)
    assert len(few) == 12 and few.num_classes == records.num_classes
    assert len(np.unique(few.labels)) == 12 and set(few.keys) <= set(records.keys)
    assert subset(records, 120) is records


def test_a_cache_that_does_not_fit_is_left_out(tiny_records, tmp_path, monkeypatch):
    def full(*arguments):
        raise CacheError("too small")

    monkeypatch.setattr("pipeline.decode.cache.DecodedCache", full)
    with pytest.raises(LeftOut, match="too small"):
        next(cached(tiny_records, str(tmp_path), 8, 0))


def test_the_window_is_the_default_of_the_configuration():
    assert WINDOW_IMAGES == DataConfig.window

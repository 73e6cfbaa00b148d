# SPDX-License-Identifier: Apache-2.0
"""Constants that other interpreters have to repeat."""

from __future__ import annotations

from benchmarks.harness import inputs
from pipeline.decode import dali


def test_images_are_normalised_as_ours_are():
    assert (inputs.MEAN, inputs.STD) == (dali.MEAN, dali.STD)

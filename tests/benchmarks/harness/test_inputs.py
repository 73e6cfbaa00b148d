# SPDX-License-Identifier: Apache-2.0
"""Constants that benchmarks/harness/inputs.py copies."""

from __future__ import annotations

from benchmarks.harness import inputs
from pipeline.decode import dali


def test_the_normalisation_constants_equal_those_of_the_loader():
    assert (inputs.MEAN, inputs.STD) == (dali.MEAN, dali.STD)

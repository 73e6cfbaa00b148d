# SPDX-License-Identifier: Apache-2.0
"""The tests of this folder run with the native operators, all others with the plain ones."""

from __future__ import annotations

import pytest

import ops


@pytest.fixture(autouse=True)
def native():
    """Choose the native operators for a test; skip it where they cannot be compiled."""
    said = ops.use("auto")
    if not ops.fused():
        pytest.skip(said)
    yield
    ops.use("plain")

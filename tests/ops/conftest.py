# SPDX-License-Identifier: Apache-2.0
"""Fixture that makes the tests of this folder use the native operators."""

from __future__ import annotations

import pytest

import ops


@pytest.fixture(autouse=True)
def native():
    """Choose the native operators for a test; skip it if they cannot be compiled."""
    reason = ops.use("auto")
    if not ops.fused():
        pytest.skip(reason)
    yield
    ops.use("plain")

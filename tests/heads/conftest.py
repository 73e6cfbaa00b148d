# SPDX-License-Identifier: Apache-2.0
"""Fixture that runs a test with the plain and with the native operators."""

from __future__ import annotations

import pytest

import ops


@pytest.fixture(params=["plain", "native"])
def operators(request):
    ops.use(request.param)
    yield
    ops.use("plain")

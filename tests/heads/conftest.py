# SPDX-License-Identifier: Apache-2.0
"""Both forms of the operators for the tests that ask for them."""

from __future__ import annotations

import pytest

import ops


@pytest.fixture(params=["plain", "native"])
def operators(request):
    ops.use(request.param)
    yield
    ops.use("plain")

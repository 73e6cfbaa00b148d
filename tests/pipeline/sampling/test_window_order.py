# SPDX-License-Identifier: Apache-2.0
"""Window order: the Python function equals the compiled one."""

from __future__ import annotations

import numpy as np
import pytest

import ops
from pipeline.sampling.window_order import window_order


@pytest.fixture(scope="module")
def kernels():
    ops.use("native")
    found = ops.loader_kernels()
    ops.use("plain")
    return found


@pytest.mark.parametrize("arguments", [(5, 6, 1, 0), (5, 5, 0, 0), (5, -1, 1, 0)])
def test_invalid_arguments_are_refused(kernels, arguments):
    with pytest.raises(ValueError, match=r"^feed\.window_order: "):
        kernels.window_order(*arguments)


@pytest.mark.parametrize("seed", [0, 1, 3, 3_000_009, 2**31 - 1])
@pytest.mark.parametrize("window", [1, 2, 40, 100_000])
def test_the_python_function_equals_the_compiled_one(kernels, window, seed):
    for count, taken in ((0, 0), (1, 1), (3000, 3000), (3000, 2001)):
        found = window_order(count, taken, window, seed)
        assert found.dtype == np.int32
        assert (found == kernels.window_order(count, taken, window, seed)).all()

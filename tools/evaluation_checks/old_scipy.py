# SPDX-License-Identifier: Apache-2.0
"""Names and behaviour of older SciPy releases, which InsightFace and GluonFR rely on."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np


def restore_old_scipy(packages: str) -> None:
    """Add a folder with scikit-learn and SciPy to sys.path, and adapt SciPy.

    ``scipy.misc`` is imported, but not used, and no longer exists.  ``interp1d`` refuses repeated x
    in new releases; both projects pass repeated false accept rates.
    """
    sys.path.append(packages)
    import scipy
    import scipy.interpolate
    import sklearn.model_selection  # noqa: F401  imports parts of SciPy that call interp1d

    sys.modules["scipy.misc"] = scipy.misc = types.ModuleType("scipy.misc")
    scipy.interpolate.interp1d = _interpolate


def _interpolate(x: Any, y: Any, kind: str = "linear") -> Callable[[float], float]:
    return lambda value: float(np.interp(value, x, y))

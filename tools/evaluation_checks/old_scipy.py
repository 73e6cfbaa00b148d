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

    New releases have no ``scipy.misc``; InsightFace imports the module without using it.  In
    new releases, ``interp1d`` refuses repeated x; both projects pass repeated false accept rates.
    """
    sys.path.append(packages)
    import scipy
    import scipy.interpolate

    # scikit-learn loads SciPy modules that use interp1d, so import it before the replacement.
    import sklearn.model_selection  # noqa: F401

    sys.modules["scipy.misc"] = scipy.misc = types.ModuleType("scipy.misc")
    scipy.interpolate.interp1d = _interpolate


def _interpolate(x: Any, y: Any, kind: str = "linear") -> Callable[[float], float]:
    return lambda value: float(np.interp(value, x, y))

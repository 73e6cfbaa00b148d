# SPDX-License-Identifier: Apache-2.0
"""Print whether the symbols of libmxnet are global in the process after the ranks connect."""

from __future__ import annotations

import ctypes

import numpy as np

from launch.ranks.comm import connect

comm = connect()
total = comm.sum(np.array([1.0 + comm.rank]))
print(f"sum {total[0]:g}, global {hasattr(ctypes.CDLL(None), 'MXGetVersion')}", flush=True)
comm.gather_json("done")
comm.close()

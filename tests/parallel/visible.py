# SPDX-License-Identifier: Apache-2.0
"""One rank of a test: is libmxnet seen by the whole process once the ranks are connected?"""

from __future__ import annotations

import ctypes

import numpy as np

from launch.ranks.comm import connect

comm = connect()
total = comm.sum(np.array([1.0 + comm.rank]))
print(f"sum {total[0]:g}, seen {hasattr(ctypes.CDLL(None), 'MXGetVersion')}", flush=True)
comm.gather_json("done")
comm.close()

# SPDX-License-Identifier: Apache-2.0
"""Write and read the arrays of a checkpoint, in MXNet's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
import numpy as np

import mxnet_arrays
from training.checkpoint_files import CheckpointError, flush


def write_arrays(path: Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Write arrays by name, flush the file to disk, and read it back.

    Raises
    ------
    OSError, mx.base.MXNetError
        If the file cannot be written completely.
    """
    # Copy to the CPU first: MXNet stores the device of each array in the file, and would load an
    # array from a GPU onto the GPU again, even in a run on the CPU.
    arrays = {name: array.as_in_context(mx.cpu()) for name, array in arrays.items()}
    try:
        mx.nd.save(str(path), arrays)
    except mx.base.MXNetError as error:
        if "Write incomplete" in str(error):
            raise OSError(
                28, "No space left on device (or the limit on file sizes is reached)"
            ) from None
        raise
    flush(path)
    # Read the file back and compare: MXNet reports no error if the last part of a file does not fit
    # on the disk.
    try:
        back = mxnet_arrays.read_arrays(path)
    except mxnet_arrays.ArrayFileError:
        back = None
    if back is None or any(
        name not in back or not np.array_equal(back[name], array.asnumpy(), equal_nan=True)
        for name, array in arrays.items()
    ):
        raise OSError(28, "No space left on device (the file is incomplete)")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint's file by name.

    This function does not call ``mx.nd.load``, which may end the process on a damaged file.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is no valid file of MXNet arrays.
    """
    try:
        return mxnet_arrays.read_arrays(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {error.strerror}; make the file readable"
        ) from None
    except mxnet_arrays.ArrayFileError as error:
        raise CheckpointError(f"{error}, or use another checkpoint") from None


def to_ndarray(array: np.ndarray) -> mx.nd.NDArray:
    """Copy a NumPy array to a float32 NDArray on the CPU; parameters and momenta are float32."""
    return mx.nd.array(array, ctx=mx.cpu(), dtype=np.float32)

# SPDX-License-Identifier: Apache-2.0
"""Process-wide choice between fused operators and plain operators, which are those of Gluon.

Call ``use`` before the first call of a network.  Without a call of ``use`` the operators are plain.
Network blocks query the choice with ``fused``, ``fused_scores`` and ``for_gpu``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops import build
from ops.feed import LoaderKernels
from ops.guard import Guard

if TYPE_CHECKING:
    from mxnet import gluon

CHOICES = ("auto", "native", "plain")


@dataclass
class State:
    """Choice of operators of this process; the function ``use`` sets it."""

    device: str = "cpu"
    """Type of the device on which the network computes: "cpu" or "gpu"."""
    fused_device: str = ""
    """Type of the device whose fused operators are in use; empty for plain operators."""
    loader_kernels: LoaderKernels | None = None
    """Compiled functions for data loaders.  They run on the CPU, even if the network computes on a
    GPU.  None if the choice is "plain" or the library cannot be compiled."""
    loaded: bool = False
    """True after MXNet has loaded the library; MXNet can load a library only once."""
    guard: Guard | None = None
    """SIGBUS handler of the process, which can have only one; None until ``guard()`` sets it."""


state = State()
_infers = ContextVar("infers", default=False)
"""Whether this thread calls or traces a network for inference with fused operators."""


class OperatorError(ValueError):
    """Error for operators that are not available, or that are chosen or used in an invalid way."""


def use(choice: str, device: str = "cpu", device_id: int = 0) -> str:
    """Choose the operators of this process; return a message for the log, or an empty string.

    Parameters
    ----------
    choice
        "native" uses the fused operators, and raises an error if they are not available.  "plain"
        uses Gluon's operators.  "auto" uses the fused operators on a CPU if they are available,
        and plain operators on a GPU.
    device
        Type of the device on which the network computes, "cpu" or "gpu".
    device_id
        Number of the GPU on which the network computes, as in ``mx.gpu(number)``.

    Raises
    ------
    OperatorError
        If ``choice`` is invalid, or if it is "native" and the fused operators are not available.
    """
    if choice not in CHOICES:
        raise OperatorError(f"run.operators: must be one of {', '.join(CHOICES)}, got {choice!r}")
    state.device, state.fused_device, state.loader_kernels = device, "", None
    if choice == "plain":
        return ""
    # This import loads MXNet, and so the CUDA libraries, which the check of the GPU needs.  Without
    # MXNet, `build` would not look for GPU operators.
    from ops.load import load_library

    try:
        path = build.compile_library()
        compiled = ctypes.CDLL(str(path))
        state.loader_kernels = LoaderKernels(compiled)
        if choice == "auto" and device != "cpu":
            return ""
        if device == "gpu":
            _require_gpu(compiled, device_id)
        if not state.loaded:
            load_library(path)
            state.loaded = True
    except build.BuildError as error:
        if choice == "native":
            raise OperatorError(str(error)) from None
        if device != "cpu":  # on a GPU "auto" uses plain operators, with or without a library
            return f"native JPEG decoder not compiled, so DALI decodes all images: {error}"
        return f"fused operators not compiled, so the slower plain operators are used: {error}"
    state.fused_device = device
    compiled.face_ops_level.restype = ctypes.c_char_p
    level = "gpu" if device == "gpu" else compiled.face_ops_level().decode()
    return f"operators native ({level})"


def _require_gpu(compiled: ctypes.CDLL, device_id: int) -> None:
    """Raise OperatorError if the library ``compiled`` cannot run the operators on the GPU."""
    if not hasattr(compiled, "face_ops_gpu_fault"):
        raise OperatorError(
            "run.operators: the library must contain GPU operators, got one compiled without nvcc, "
            "or for an MXNet without CUDA; use run.operators=plain"
        )
    compiled.face_ops_gpu_fault.argtypes = [ctypes.c_int]
    compiled.face_ops_gpu_fault.restype = ctypes.c_char_p
    fault = compiled.face_ops_gpu_fault(device_id)
    if fault:
        raise OperatorError(
            f"run.operators: GPU {device_id} cannot run the fused operators, got: "
            f"{fault.decode()}; use run.operators=plain"
        )


def loader_kernels() -> LoaderKernels | None:
    """Return the compiled functions for data loaders, as the last call of ``use`` set them.

    Returns None if the choice was "plain", or if the library could not be compiled.
    """
    return state.loader_kernels


def compiled() -> LoaderKernels | None:
    """Return the compiled functions for data loaders, even if the choice is "plain".

    Compiles the library if necessary.  Returns None if the library cannot be compiled.
    """
    try:
        return state.loader_kernels or LoaderKernels(ctypes.CDLL(str(build.compile_library())))
    except build.BuildError:
        return None


def guard() -> Guard | None:
    """Return the guard against failed reads of mapped files, even if the operators are plain.

    Returns None if the library is not compiled or the SIGBUS handler cannot be installed.
    """
    if state.guard is None:
        path = build.library()
        if path.is_file():
            new = Guard(ctypes.CDLL(str(path)))
            state.guard = new if new.works else None
    return state.guard


def fused() -> bool:
    """Return whether training uses the fused operators, on a CPU or a GPU."""
    return bool(state.fused_device)


@contextmanager
def fused_inference() -> Iterator[None]:
    """Make layers inside the context use the fused inference operators, which have no gradient."""
    token = _infers.set(True)
    try:
        yield
    finally:
        _infers.reset(token)


def infers() -> bool:
    """Return whether the caller runs inside the context manager `fused_inference`."""
    return _infers.get()


def for_gpu() -> bool:
    """Return whether the block that is being traced or called computes on a GPU.

    The result is True if ``use`` chose a GPU or if the current context is a GPU.  Gluon sets the
    current context to the device of a block's input before it calls or traces the block.
    Therefore a network gets the operators for its device even without a call of ``use``.
    """
    from mxnet import context

    return "gpu" in (state.device, context.current_context().device_type)


def fused_scores() -> bool:
    """Return whether this process uses the fused operators that exist only for a CPU.

    These operators are the convolutions, all operators for inference, and the margin softmax for
    heads whose scores are not scaled cosines.
    """
    return state.fused_device == "cpu"


def refuse_add(where: str, *parameters: gluon.Parameter) -> None:
    """Raise OperatorError if a parameter has ``grad_req="add"``.

    MXNet does not pass grad_req to operators of a loaded library.  A fused operator would therefore
    silently overwrite the gradient instead of adding to it.

    Parameters
    ----------
    where
        First words of the error message, such as the name of the layer.
    """
    for parameter in parameters:
        if parameter.grad_req == "add":
            raise OperatorError(
                f"{where}: the fused operators cannot add to a gradient, got grad_req='add' of "
                f"{parameter.name}; use grad_req='write' or run.operators=plain"
            )

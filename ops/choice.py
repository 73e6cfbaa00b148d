# SPDX-License-Identifier: Apache-2.0
"""The choice between fused operators and plain ones, one for the whole process.

``use`` chooses, before a network is called for the first time; until then it is the plain form.
``fused`` and ``fused_scores`` tell the blocks, and ``for_gpu`` tells those whose plain form differs
between CPUs and GPUs.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from mxnet import context, gluon, library

from ops import build
from ops.feed import LoaderKernels
from ops.guard import Guard

CHOICES = ("auto", "native", "plain")


@dataclass
class State:
    """The operators that this process uses; ``use`` changes it."""

    device: str = "cpu"
    """Type of the device that computes, whichever form is used."""
    fused_device: str = ""
    """Type of the device whose fused operators are used; empty for the plain form."""
    loader_kernels: LoaderKernels | None = None
    """Functions of the loaders, which work on the CPU whatever computes."""
    loaded: bool = False
    """Whether MXNet has the library, which it takes once."""
    guard: Guard | None = None
    """Guard of the whole process: SIGBUS is taken over once."""


state = State()


class OperatorError(ValueError):
    """The operators cannot be used as asked."""


def use(choice: str, device: str = "cpu", device_id: int = 0) -> str:
    """Choose the operators; return the sentence that the log should carry.

    Parameters
    ----------
    choice
        "native": the fused operators, or an error; "plain": Gluon's own; "auto": native if
        available, on the CPU alone as long as those for GPUs have not run on one.
    device
        Type of the device that computes, "cpu" or "gpu". The plain form is the one for it.
    device_id
        Number of the GPU that is asked whether it can run the operators, as in ``mx.gpu(number)``.

    Raises
    ------
    OperatorError
        If native operators are asked for and not available.
    """
    if choice not in CHOICES:
        raise OperatorError(f"run.operators: must be one of {', '.join(CHOICES)}, got {choice!r}")
    state.device, state.fused_device, state.loader_kernels = device, "", None
    if choice == "plain":
        return ""
    try:
        path = build.compile_library()
        compiled = ctypes.CDLL(str(path))
        state.loader_kernels = LoaderKernels(compiled)
        if choice == "auto" and device != "cpu":
            return ""
        if device == "gpu":
            _require_gpu(compiled, device_id)
        if not state.loaded:
            library.load(str(path), verbose=False)
            state.loaded = True
    except build.BuildError as error:
        if choice == "native":
            raise OperatorError(str(error)) from None
        if device != "cpu":  # the operators are plain in any case
            return f"JPEG decoder not compiled, so that DALI decodes all images: {error}"
        return f"operators plain, which is slower: {error}"
    state.fused_device = device
    compiled.face_ops_level.restype = ctypes.c_char_p
    level = "gpu" if device == "gpu" else compiled.face_ops_level().decode()
    return f"operators native ({level})"


def _require_gpu(compiled: ctypes.CDLL, device_id: int) -> None:
    """Raise OperatorError if the library has no operators for this GPU of the host."""
    if not hasattr(compiled, "face_ops_gpu_fault"):
        raise OperatorError(
            "run.operators: the operators for GPUs are not in the library, got MXNet without CUDA "
            "or no nvcc when it was compiled; use run.operators=plain"
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
    """Return the functions that loaders call for whole batches; None for the plain form."""
    return state.loader_kernels


def compiled() -> LoaderKernels | None:
    """Return the same functions whatever operators are chosen; None if they are not available."""
    try:
        return state.loader_kernels or LoaderKernels(ctypes.CDLL(str(build.compile_library())))
    except build.BuildError:
        return None


def guard() -> Guard | None:
    """Return what guards reads of mapped files, whichever operators are used.

    None where the library has not been compiled, or SIGBUS cannot be handled.
    """
    if state.guard is None:
        path = build.library()
        if path.is_file():
            found = Guard(ctypes.CDLL(str(path)))
            state.guard = found if found.works else None
    return state.guard


def fused() -> bool:
    """Return whether the operators are used that work in training and inference alike."""
    return bool(state.fused_device)


def for_gpu() -> bool:
    """Return whether what is traced or called now computes on a GPU.

    It does where ``use`` was told of a GPU, or where the arrays lie on one. A traced graph does not
    know its arrays, but MXNet does: a block makes the device of its input the current context
    before it is traced, as before it is called operator by operator. So networks need no call of
    ``use`` to get the form for their device.
    """
    return "gpu" in (state.device, context.current_context().device_type)


def fused_scores() -> bool:
    """Return whether the margin softmax of any scores is used, which the CPU alone has."""
    return state.fused_device == "cpu"


def refuse_add(where: str, *parameters: gluon.Parameter) -> None:
    """Raise OperatorError if a gradient is to be added to what is there.

    MXNet does not pass grad_req to external operators, so the sum would be silently wrong.
    """
    for parameter in parameters:
        if parameter.grad_req == "add":
            raise OperatorError(
                f"{where}: the fused operators cannot add to a gradient, got grad_req='add' of "
                f"{parameter.name}; use grad_req='write' or run.operators=plain"
            )

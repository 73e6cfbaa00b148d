# SPDX-License-Identifier: Apache-2.0
"""Fused operators for MXNet and for loaders, and the one place that chooses whether they are used.

Every operator has a plain-Gluon twin in the block that uses it: the same parameters, the same
numbers up to rounding.  ``use`` chooses, before a network is called for the first time; until then
it is the plain form.  ``fused`` tells the blocks, and ``for_gpu`` tells those whose plain form
differs between CPUs and GPUs.
"""

from __future__ import annotations

import ctypes
from typing import Any

from mxnet import autograd, context, gluon, library

from ops import build
from ops.feed import LoaderKernels
from ops.guard import Guard

CHOICES = ("auto", "native", "plain")
_device = ""  # type of the device whose fused operators are used; "" for the plain form
_computes_on = "cpu"  # type of the device that ``use`` was told of, whichever form is used
_loaded = False  # MXNet takes a library once
# They work on the CPU whatever computes.
_loader_kernels: LoaderKernels | None = None
_guard: Guard | None = None  # of the whole process: SIGBUS is taken over once


class OperatorError(ValueError):
    """The operators cannot be used as asked."""


def use(choice: str, device: str = "cpu", device_id: int = 0) -> str:
    """Choose the operators; return the sentence that the log should carry.

    Parameters
    ----------
    choice
        "native": the fused operators, or an error; "plain": Gluon's own; "auto": native where
        they can be had, on the CPU alone as long as those for GPUs have not run on one.
    device
        Type of the device that computes, "cpu" or "gpu". The plain form is the one for it.
    device_id
        Number of the GPU that is asked whether it can run the operators, as in ``mx.gpu(number)``.

    Raises
    ------
    OperatorError
        If native operators are asked for and cannot be had.
    """
    global _device, _computes_on, _loaded, _loader_kernels
    if choice not in CHOICES:
        raise OperatorError(f"run.operators: must be one of {', '.join(CHOICES)}, got {choice!r}")
    _device, _computes_on, _loader_kernels = "", device, None
    if choice == "plain":
        return ""
    try:
        path = build.compile_library()
        compiled = ctypes.CDLL(str(path))
        _loader_kernels = LoaderKernels(compiled)
        if choice == "auto" and device != "cpu":
            return ""
        if device == "gpu":
            _require_gpu(compiled, device_id)
        if not _loaded:
            library.load(str(path), verbose=False)
            _loaded = True
    except build.BuildError as error:
        if choice == "native":
            raise OperatorError(str(error)) from None
        if device != "cpu":  # the operators are plain in any case
            return f"JPEG decoder not compiled, so that DALI decodes all images: {error}"
        return f"operators plain, which is slower: {error}"
    _device = device
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
    return _loader_kernels


def compiled() -> LoaderKernels | None:
    """Return the same functions whatever operators are chosen; None where they cannot be had."""
    try:
        return _loader_kernels or LoaderKernels(ctypes.CDLL(str(build.compile_library())))
    except build.BuildError:
        return None


def guard() -> Guard | None:
    """Return what guards reads of mapped files, whichever operators are used.

    None where the library has not been compiled, or SIGBUS cannot be handled.
    """
    global _guard
    if _guard is None:
        path = build.library()
        if path.is_file():
            found = Guard(ctypes.CDLL(str(path)))
            _guard = found if found.works else None
    return _guard


def fused() -> bool:
    """Return whether the operators are used that work in training and inference alike."""
    return bool(_device)


def for_gpu() -> bool:
    """Return whether what is traced or called now computes on a GPU.

    It does where ``use`` was told of a GPU, or where the arrays lie on one. A traced graph does not
    know its arrays, but MXNet does: a block makes the device of its input the current context
    before it is traced, as before it is called operator by operator. So networks need no call of
    ``use`` to get the form for their device.
    """
    return "gpu" in (_computes_on, context.current_context().device_type)


def fused_scores() -> bool:
    """Return whether the margin softmax of any scores is used, which the CPU alone has."""
    return _device == "cpu"


def fused_training() -> bool:
    """Return whether the operators of training are used: in a graph of training, where native."""
    return autograd.is_training() and fused()


def fused_convolutions() -> bool:
    """Return whether the convolutions of training are used, which the CPU alone has."""
    return fused_training() and _device == "cpu"


def refuse_add(where: str, *parameters: gluon.Parameter) -> None:
    """Raise OperatorError if a gradient is to be added to what is there.

    MXNet does not tell its external operators, so that the sum would be wrong without a word.
    """
    for parameter in parameters:
        if parameter.grad_req == "add":
            raise OperatorError(
                f"{where}: the fused operators cannot add to a gradient, got grad_req='add' of "
                f"{parameter.name}; use grad_req='write' or run.operators=plain"
            )


class TwoGraphs(gluon.HybridBlock):
    """A hybrid block with one graph for training and one for inference, over the same parameters.

    A hybridized block is traced once, and whether it is in training is frozen then; the operators
    of training must not be met in inference. A block whose parameters have moved from a CPU to a
    GPU, or back, is traced again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._graphs: dict[bool, tuple] = {}
        self._graphs_for_gpu: dict[bool, bool] = {}

    def _call_cached_op(self, *args: Any) -> Any:
        training, gpu = autograd.is_training(), for_gpu()
        if self._graphs_for_gpu.get(training, gpu) != gpu:
            del self._graphs[training]
        self._switch(training)
        out = super()._call_cached_op(*args)
        self._graphs[training], self._graphs_for_gpu[training] = self._traced(), gpu
        return out

    def _switch(self, training: bool) -> None:
        empty = ((), None, [], None, None)
        (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
        ) = self._graphs.get(training, empty)

    def _traced(self) -> tuple:
        return (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
        )

    def _clear_cached_op(self) -> None:
        super()._clear_cached_op()
        self._graphs, self._graphs_for_gpu = {}, {}

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the graph of inference, which holds none of our operators."""
        self._switch(False)
        return super().export(*args, **kwargs)

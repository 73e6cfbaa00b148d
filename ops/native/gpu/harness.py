# SPDX-License-Identifier: Apache-2.0
"""Python interface of harness.cc, which runs the GPU operators without MXNet.

The arrays are CuPy arrays on a GPU.  They are NumPy arrays if the library is compiled for the
emulation of a GPU on the CPU, as in tests/ops/gpu.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Array = Any  # a CuPy array, or a NumPy array for the emulation of a GPU


class HarnessError(RuntimeError):
    """Error for an operator that could not enqueue its work; the message gives the reason."""


class Results(NamedTuple):
    """Outputs of the margin softmax's forward pass, as in MarginSoftmaxResults (kernels.h)."""

    loss: Array
    cosine: Array
    maximum: Array
    total: Array
    pull: Array
    share: Array


class Harness:
    """GPU operators as methods that take arrays on the device and allocate their outputs.

    Parameters
    ----------
    library
        Path of a shared library compiled from the sources in this folder.
    empty
        ``empty(shape, dtype)`` allocates an array on the device, for example of dtype "uint8".
    pointer
        ``pointer(array)`` returns the device address of an array.
    stream
        Address of the CUDA stream on which all work is enqueued; 0 is the default stream.
    """

    def __init__(
        self,
        library: Path,
        empty: Callable[[tuple[int, ...], Any], Array],
        pointer: Callable[[Array], int],
        stream: int = 0,
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._empty, self._pointer = empty, pointer
        self._stream = ctypes.c_void_p(stream)

    def fault(self, device: int = 0) -> str | None:
        """Return why GPU number ``device`` cannot run the operators, or None if it can."""
        function = self._library.face_gpu_fault
        function.argtypes, function.restype = [ctypes.c_int], ctypes.c_char_p
        fault = function(device)
        return fault.decode() if fault else None

    def margin_softmax_bytes(
        self, width: int, sides: tuple[int, int, int], update: bool, chunk: int = 0
    ) -> int:
        """Return the size in bytes of the workspace of the margin softmax.

        Parameters
        ----------
        width
            Size of a value in bytes: 4 for float32, 8 for float64.
        sides
            (B, E, C): numbers of rows, embedding dimensions and classes.
        update
            Whether the workspace is for ``margin_softmax_step``.
        chunk
            Number of classes processed at a time; 0 lets the library choose.
        """
        function = self._library.face_gpu_margin_softmax_bytes
        function.restype = ctypes.c_int64
        return int(function(width, _size(*sides), int(update), _long(chunk)))

    def margin_softmax(self, inputs: list[Array], scale: float, chunk: int = 0) -> Results:
        """Run the forward pass of the margin softmax; return its outputs.

        ``inputs`` are embedding, centres, label, psi (the cosine of the target with its margin) and
        slope (the derivative of psi with respect to the cosine without margin).  ``chunk`` is the
        number of classes processed at a time; 0 lets the library choose.
        """
        (rows, dims), classes = inputs[0].shape, len(inputs[1])
        shapes = [(rows,)] * 4 + [(rows, dims), (classes,)]
        out = Results(*(self._empty(shape, inputs[0].dtype) for shape in shapes))
        size = _size(rows, dims, classes)
        memory = self._memory("margin_softmax_bytes", inputs[0], size, 0, _long(chunk))
        self._call(
            "margin_softmax_forward",
            inputs[0],
            size,
            self._list(inputs),
            self._list(out),
            ctypes.c_double(scale),
            memory,
            self._stream,
            _long(chunk),
        )
        return out

    def margin_softmax_gradients(
        self,
        inputs: list[Array],
        results: Results,
        gradient: Array,
        scale: float,
        chunk: int = 0,
    ) -> tuple[Array, Array]:
        """Run the margin softmax's backward pass; return the gradients of embedding and centres.

        ``gradient`` (B,) is the incoming gradient, with respect to the losses of the B rows.  The
        returned gradients depend on ``p - 1``, where p is the probability of a row's target.
        ``results.loss`` may be None; if it is given, ``p - 1`` is exact even if p is near 1.
        """
        out = [self._empty(array.shape, array.dtype) for array in inputs[:2]]
        size = _size(*inputs[0].shape, len(inputs[1]))
        memory = self._memory("margin_softmax_bytes", inputs[0], size, 0, _long(chunk))
        self._call(
            "margin_softmax_backward",
            inputs[0],
            size,
            self._list(inputs),
            self._list(results),
            self._at(gradient),
            self._list(out),
            ctypes.c_double(scale),
            memory,
            self._stream,
            _long(chunk),
        )
        return out[0], out[1]

    def margin_softmax_step(
        self,
        inputs: list[Array],
        results: Results,
        velocity: Array,
        rate: Array,
        numbers: tuple[float, float, float],
        scale: float,
        chunk: int = 0,
    ) -> None:
        """Apply one SGD step to the class centres and their velocity, in place.

        Parameters
        ----------
        rate
            Learning rate, as an array (1,) on the device.
        numbers
            Momentum, weight decay, and the gradient with respect to the loss of each row, which is
            one number for all rows.
        """
        size = _size(*inputs[0].shape, len(inputs[1]))
        memory = self._memory("margin_softmax_bytes", inputs[0], size, 1, _long(chunk))
        self._call(
            "margin_softmax_update",
            inputs[0],
            size,
            self._list(inputs),
            self._list(results),
            self._list([inputs[1], velocity, rate]),
            (ctypes.c_double * 3)(*numbers),
            ctypes.c_double(scale),
            memory,
            self._stream,
            _long(chunk),
        )

    def prelu(self, x: Array, slope: Array) -> Array:
        """Return PReLU of x, (N, C, P) for N images, C channels and P pixels."""
        y = self._empty(x.shape, x.dtype)
        self._call("prelu_forward", x, _size(*x.shape), self._list([x, slope, y]), self._stream)
        return y

    def prelu_gradients(self, x: Array, slope: Array, dy: Array) -> tuple[Array, Array]:
        """Return the gradients of PReLU with respect to x and slope.

        ``dy`` is the gradient with respect to the output.
        """
        dx, dslope = (self._empty(a.shape, a.dtype) for a in (x, slope))
        size = _size(*x.shape)
        memory = self._memory("activation_bytes", x, size)
        arrays = self._list([x, slope, dy, dx, dslope])
        self._call("prelu_backward", x, size, arrays, memory, self._stream)
        return dx, dslope

    def batch_norm(
        self, inputs: list[Array], running: list[Array], epsilon: float, momentum: float
    ) -> tuple[Array, Array, Array]:
        """Run batch normalisation; return the output, the mean and 1 / standard deviation.

        Parameters
        ----------
        inputs
            x, gamma, beta, and the slope of the PReLU that follows.  The slope is None if no PReLU
            follows.
        running
            Running mean and running variance, which are updated in place.
        """
        x, gamma = inputs[:2]
        out = [self._empty(a.shape, x.dtype) for a in (x, gamma, gamma)]
        size = _size(*x.shape)
        memory = self._memory("activation_bytes", x, size)
        self._call(
            "batch_norm_forward",
            x,
            size,
            self._list(inputs),
            ctypes.c_double(epsilon),
            ctypes.c_double(momentum),
            self._list([*out, *running]),
            memory,
            self._stream,
        )
        return out[0], out[1], out[2]

    def batch_norm_gradients(
        self, inputs: list[Array], mean: Array, inverse: Array, dy: Array, epsilon: float
    ) -> list[Array]:
        """Return batch normalisation's gradients with respect to the arrays in ``inputs``.

        ``inputs`` are those of ``batch_norm``.  ``mean`` and ``inverse`` (1 / standard deviation)
        are results of ``batch_norm``.  ``dy`` is the gradient with respect to the output.
        """
        arrays = [array for array in inputs if array is not None]
        out = [self._empty(array.shape, array.dtype) for array in arrays]
        given = self._list([mean, inverse, dy])
        x, size = inputs[0], _size(*inputs[0].shape)
        memory = self._memory("activation_bytes", x, size)
        self._call(
            "batch_norm_backward",
            x,
            size,
            self._list(inputs),
            ctypes.c_double(epsilon),
            given,
            self._list([*out, None][:4]),
            memory,
            self._stream,
        )
        return out

    def fill(self, array: Array, value: float) -> None:
        """Set all values of an array to ``value``."""
        where, count = self._at(array), _long(array.size)
        self._call("fill", array, where, count, ctypes.c_double(value), self._stream)

    def _at(self, array: Array | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if array is None else self._pointer(array))

    def _list(self, arrays: Any) -> Any:
        return (ctypes.c_void_p * len(arrays))(*(self._at(array).value for array in arrays))

    def _memory(self, name: str, like: Array, *arguments: Any) -> ctypes.c_void_p:
        function = getattr(self._library, f"face_gpu_{name}")
        function.restype = ctypes.c_int64
        self._workspace = self._empty((function(like.dtype.itemsize, *arguments),), "uint8")
        return self._at(self._workspace)

    def _call(self, name: str, like: Array, *arguments: Any) -> None:
        function = getattr(self._library, f"face_gpu_{name}")
        function.restype = ctypes.c_char_p
        fault = function(like.dtype.itemsize, *arguments)
        if fault:
            raise HarnessError(f"{name}: {fault.decode()}")


def _long(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _size(*sides: int) -> Any:
    return (ctypes.c_int64 * 3)(*sides)

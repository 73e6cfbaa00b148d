# SPDX-License-Identifier: Apache-2.0
"""Load a library of operators into MXNet, as ``mx.library.load`` does but faster.

``mx.library.load`` generates the Python functions of all operators of MXNet again, which takes half
a second in every process.  ``load_library`` generates only the functions of the new operators.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import mxnet as mx
from mxnet.base import _LIB, OpHandle, check_call
from mxnet.ndarray.register import _make_ndarray_function
from mxnet.symbol.register import _make_symbol_function


def load_library(path: Path) -> list[str]:
    """Load the operators of a library into ``mx.nd`` and ``mx.sym``; return their names, sorted.

    Only operators whose names do not begin with an underscore get Python functions: the others
    compute gradients, and only MXNet's engine calls them.

    Parameters
    ----------
    path
        Absolute path of a library that was compiled with MXNet's lib_api.h.  A process can load a
        library only once.

    Raises
    ------
    mxnet.base.MXNetError
        If MXNet cannot load the library, or if an operator of the same name exists.
    """
    before = _operator_names()
    check_call(_LIB.MXLoadLib(str(path).encode(), 0))  # 0: without a list of the operators
    added = sorted(name for name in _operator_names() - before if not name.startswith("_"))
    for name in added:
        handle = OpHandle()
        check_call(_LIB.NNGetOpHandle(name.encode(), ctypes.byref(handle)))
        for module, make in ((mx.nd, _make_ndarray_function), (mx.sym, _make_symbol_function)):
            function = make(handle, name, name)
            for namespace in (module, module.op):
                setattr(namespace, name, function)
    return added


def _operator_names() -> set[str]:
    """Return the names of all operators of this process."""
    size, names = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    check_call(_LIB.MXListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    return {names[i].decode() for i in range(size.value)}

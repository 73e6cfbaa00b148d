# SPDX-License-Identifier: Apache-2.0
"""load_library adds the same operators as mx.library.load, and changes no other function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.build import compile_library

ROOT = Path(__file__).resolve().parents[2]
PRINT_ADDED = """
import inspect, json, sys
from pathlib import Path
import mxnet as mx
from ops.load import load_library

path = sys.argv[2]
modules = {"nd": mx.nd, "nd.op": mx.nd.op, "sym": mx.sym, "sym.op": mx.sym.op}
before = {name: dict(vars(module)) for name, module in modules.items()}
names = load_library(Path(path)) if sys.argv[1] == "ours" else mx.library.load(path, verbose=False)
added = {
    f"{name}.{key}": [str(inspect.signature(value)), value.__doc__]
    for name, module in modules.items()
    for key, value in vars(module).items()
    if callable(value) and key not in before[name] and not key.startswith("_")
}
same = all(
    vars(module)[key] is value
    for name, module in modules.items()
    for key, value in before[name].items()
    if callable(value)
)
print(json.dumps({"names": names, "added": added, "same": same}))
"""


def loaded(how):
    command = [sys.executable, "-W", "ignore", "-c", PRINT_ADDED, how, str(compile_library())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_operators_equal_those_of_mxnet_and_no_other_function_changes():
    ours, theirs = loaded("ours"), loaded("mxnet")
    assert ours["added"] == theirs["added"]
    assert ours["names"] == sorted({key.rpartition(".")[2] for key in ours["added"]})
    assert "face_batch_norm" in ours["names"] and len(ours["added"]) == 4 * len(ours["names"])
    assert ours["same"] and not theirs["same"]


def test_a_file_that_is_no_library_is_refused(tmp_path):
    import mxnet as mx

    from ops.load import load_library

    (tmp_path / "none.so").write_bytes(b"no library")
    with pytest.raises(mx.base.MXNetError, match=r"none\.so"):
        load_library(tmp_path / "none.so")

# SPDX-License-Identifier: Apache-2.0
"""Changes of model files: most of them leave a readable container."""

from __future__ import annotations

import random
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy

from tools.fuzzing.model_mutation import mutate_model
from tools.fuzzing.torch_files import save_zip, tensor

CASES = 60


@pytest.fixture
def seeds(tmp_path):
    """Return small files by name."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_zip(tmp_path / "net.pth", {"fc.weight": tensor(values)})
    safetensors.numpy.save_file({"fc.weight": values}, tmp_path / "net.safetensors")
    node = onnx.helper.make_node("Concat", ["x", "w"], ["y"], axis=1)
    kind = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(name, kind, [1, 3]) for name in "xy")
    weights = [onnx.numpy_helper.from_array(values, "w")]
    graph = onnx.helper.make_graph([node], "net", [x], [y], weights)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def is_readable(path, name: str, data: bytes) -> bool:
    path.write_bytes(data)
    if name.endswith(".pth"):
        try:
            return zipfile.ZipFile(path).testzip() is None
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
            return False
    if name.endswith(".onnx"):
        try:
            return onnx.ModelProto.FromString(data).graph is not None
        except Exception as error:
            return "parsing" not in str(error).lower()
    return 8 + int.from_bytes(data[:8], "little") + 24 == len(data)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.onnx"])
def test_most_changes_are_inside_the_container(seeds, tmp_path, name):
    changed = [
        mutate_model(random.Random(number), name, seeds[name], (b"token",))
        for number in range(CASES)
    ]
    again = mutate_model(random.Random(3), name, seeds[name], (b"token",))
    assert again == changed[3] and len(set(changed)) > CASES // 3
    readable = sum(is_readable(tmp_path / "changed", name, data) for data in changed)
    assert readable >= CASES // 2

# SPDX-License-Identifier: Apache-2.0
"""Export networks of arcface_torch as ONNX, and open ONNX files with the insightface package.

    python -I onnx_worker.py export FOLDER BACKBONES NAME
    python -I onnx_worker.py insightface FOLDER FILE

`tools.interchange_checks.onnx_files` starts this program in an environment with PyTorch, onnx,
onnxscript and insightface.  FOLDER has pixels.npy, uint8 images (N, 112, 112, 3).  ``export`` draws
random weights, and writes embeddings.npy, folded.onnx and plain.onnx.  The ONNX files are exported
with the settings of arcface_torch's torch2onnx.py.  In folded.onnx only, PyTorch folds each batch
normalisation into the preceding convolution.  ``insightface`` computes embeddings with the ONNX
file FILE, and writes insightface.npy.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np


def load_torch_worker() -> Any:
    """Import torch_worker.py, which lies beside this file and outside the import path."""
    path = Path(__file__).with_name("torch_worker.py")
    spec = importlib.util.spec_from_file_location("torch_worker", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(folder: Path, backbones: Path, name: str) -> None:
    """Write a network with random weights as two ONNX files."""
    import onnx
    import torch

    worker = load_torch_worker()
    net = worker.build(backbones, name)
    worker.draw(net)
    np.save(folder / "embeddings.npy", worker.embed(net, folder))
    fold = torch._C._jit_pass_onnx_eval_peephole
    for title, peephole in (("folded", fold), ("plain", lambda graph, parameters: parameters)):
        torch._C._jit_pass_onnx_eval_peephole = peephole
        path = folder / f"{title}.onnx"
        torch.onnx.export(
            net.eval(),
            torch.zeros(1, 3, 112, 112),
            str(path),
            input_names=["data"],
            keep_initializers_as_inputs=False,
            opset_version=11,
            dynamo=False,
        )
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "None"
        onnx.save(model, path)


def open_with_insightface(folder: Path, file: str) -> None:
    """Compute embeddings with an ONNX file, which `insightface.model_zoo` opens."""
    from insightface.model_zoo import get_model

    model = get_model(str(folder / file), providers=["CPUExecutionProvider"])
    bgr = [np.ascontiguousarray(image[..., ::-1]) for image in np.load(folder / "pixels.npy")]
    found = model.get_feat(bgr)
    np.save(folder / "insightface.npy", found / np.linalg.norm(found, axis=1, keepdims=True))


if __name__ == "__main__":
    action, target, *rest = sys.argv[1:]
    if action == "export":
        export(Path(target), Path(rest[0]), rest[1])
    else:
        open_with_insightface(Path(target), rest[0])

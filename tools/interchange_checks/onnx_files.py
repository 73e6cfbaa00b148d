# SPDX-License-Identifier: Apache-2.0
"""Check imported ONNX files against PyTorch, and exported ones against the insightface package.

The option ``--python`` names the interpreter of a separate environment, which needs torch, onnx,
onnxscript, insightface and opencv-python-headless.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interchange.comparison import model_function
from interchange.net_graph import model_graph
from interchange.onnx_export import OnnxSettings, write_onnx
from interchange.read_onnx import read_onnx
from normalization import MEAN, STD
from tools.interchange_checks.arcface_torch import BACKBONES, IMAGES, NETWORKS, difference
from tools.interchange_checks.result import Result

if TYPE_CHECKING:
    from interchange.model import StoredModel


def run(checkout: Path, folder: Path, only: Sequence[str], *, python: Path) -> Iterator[Result]:
    """Yield the result of each network and file.

    Parameters
    ----------
    checkout
        Clone of github.com/deepinsight/insightface.
    folder
        Folder for the files of the models.
    only
        Names of the networks, keys of ``arcface_torch.NETWORKS``; an empty sequence for all.
    python
        Interpreter of an environment with the packages that the docstring of this module lists.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 112, 112, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    base: list[str | Path] = [python, "-I", Path(__file__).with_name("onnx_worker.py")]
    for name, expected in NETWORKS.items():
        if only and name not in only:
            continue
        export: list[str | Path] = [*base, "export", folder, checkout / BACKBONES, name]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = np.load(folder / "embeddings.npy")
        for title in ("folded", "plain"):
            model = read_onnx(folder / f"{title}.onnx", calibration_images=pixels)
            as_expected = model.net["name"] == expected
            error = difference(model, pixels, wanted)
            yield Result(f"{name}, {title}", model.net["name"], error, as_expected)
        yield from _exported(model, folder, name, wanted, base)


def _exported(
    model: StoredModel, folder: Path, name: str, wanted: np.ndarray, base: list[str | Path]
) -> Iterator[Result]:
    """Export a model to two ONNX files; yield a result for each file.

    The pixels are scaled inside the graph of one file, and before the graph of the other file.  The
    insightface package computes the embeddings.
    """
    compute = model_function(model)

    def embed(images: np.ndarray) -> np.ndarray:
        return compute(images * np.float32(STD) + np.float32(MEAN))

    for scaling in ("inside", "outside"):
        path = folder / f"{scaling}.onnx"
        settings = OnnxSettings(model.image_size, scaling)  # type: ignore[arg-type]
        write_onnx(model_graph(model), path, embed=embed, settings=settings)
        command = [*base, "insightface", folder, path.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        error = float(np.abs(np.load(folder / "insightface.npy") - wanted).max())
        net = read_onnx(path).net
        yield Result(
            f"{name}, scaling {scaling}",
            str(net["name"]),
            error,
            dict(net) == dict(model.net),
            note="insightface.model_zoo.get_model",
        )

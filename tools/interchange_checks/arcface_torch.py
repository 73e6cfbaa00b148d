# SPDX-License-Identifier: Apache-2.0
"""Import and export the networks of arcface_torch, and compare embeddings with PyTorch's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interchange.comparison import model_function
from interchange.read_torch import read_safetensors, read_torch
from interchange.write_safetensors import write_safetensors
from tools.interchange_checks.result import Result

if TYPE_CHECKING:
    from interchange.model import StoredModel

IMAGES = 8
BACKBONES = Path("recognition") / "arcface_torch" / "backbones"
NETWORKS = {
    "r18": "iresnet18", "r34": "iresnet34", "r50": "iresnet50", "r100": "iresnet100",
    "r200": "iresnet200", "mbf1": "mobilefacenet", "mbf": "mbf", "mbf_large": "mbf_large",
}  # fmt: skip
"""Mapping from the name in arcface_torch to ours; "mbf1" is MobileFaceNet with scale=1."""
READERS = {
    "zip.pth": read_torch,
    "legacy.pth": read_torch,
    "foreign.safetensors": read_safetensors,
}


def run(checkout: Path, folder: Path, only: Sequence[str], *, python: Path) -> Iterator[Result]:
    """Yield the result of each network and format.

    Parameters
    ----------
    checkout
        Clone of github.com/deepinsight/insightface.
    folder
        Folder for the files of the models.
    only
        Names of the networks, keys of ``NETWORKS``; an empty sequence for all.
    python
        Interpreter of an environment with torch and safetensors.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 112, 112, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    worker = Path(__file__).with_name("torch_worker.py")
    for name, expected in NETWORKS.items():
        if only and name not in only:
            continue
        base: list[str | Path] = [python, "-I", worker, checkout / BACKBONES]
        subprocess.run([*base, "save", name, folder], check=True)
        wanted = np.load(folder / "embeddings.npy")
        for file, read in READERS.items():
            model = read(folder / file)
            as_expected = model.net["name"] == expected
            error = difference(model, pixels, wanted)
            yield Result(f"{name}, {file}", model.net["name"], error, as_expected)
        write_safetensors(model, folder / "exported.safetensors")
        subprocess.run([*base, "load", name, folder], check=True)
        error = float(np.abs(np.load(folder / "loaded.npy") - wanted).max())
        yield Result(f"{name}, exported", model.net["name"], error, note="strict=True")


def difference(model: StoredModel, pixels: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference between computed and expected normalised embeddings.

    Parameters
    ----------
    model
        Model that MXNet computes.
    pixels
        Images (N, 112, 112, 3) uint8.
    wanted
        Expected normalised embeddings (N, E).
    """
    found = model_function(model)(pixels.transpose(0, 3, 1, 2).astype(np.float32))
    return float(np.abs(found / np.linalg.norm(found, axis=1, keepdims=True) - wanted).max())

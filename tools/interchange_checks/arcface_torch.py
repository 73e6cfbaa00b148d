# SPDX-License-Identifier: Apache-2.0
"""Check the import and the export of arcface_torch's networks against PyTorch.

    python -m tools.interchange_checks.arcface_torch ~/insightface --python ~/torch/bin/python

The interpreter needs the packages torch and safetensors; use an environment of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

import normalization
from interchange.read_torch import read_safetensors, read_torch
from interchange.stored_net import build_stored_net
from interchange.write_safetensors import write_safetensors
from tools.interchange_checks.result import Result

if TYPE_CHECKING:
    from interchange.model import StoredModel

MAX_DIFFERENCE = 1e-4
IMAGES = 8
BACKBONES = Path("recognition") / "arcface_torch" / "backbones"
NETWORKS = {
    "r18": "iresnet18", "r34": "iresnet34", "r50": "iresnet50", "r100": "iresnet100",
    "mbf": "mobilefacenet",
}  # fmt: skip
"""Mapping from the name in arcface_torch to ours; "mbf" is MobileFaceNet with scale=1."""
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
        base = [python, "-I", worker, checkout / BACKBONES]
        subprocess.run([*base, "save", name, folder], check=True)
        wanted = np.load(folder / "embeddings.npy")
        for file, read in READERS.items():
            model = read(folder / file)
            difference = np.abs(embeddings(model, pixels) - wanted).max()
            as_expected = model.net["name"] == expected
            yield Result(f"{name}, {file}", model.net["name"], float(difference), as_expected)
        write_safetensors(model, folder / "exported.safetensors")
        subprocess.run([*base, "load", name, folder], check=True)
        difference = np.abs(np.load(folder / "loaded.npy") - wanted).max()
        yield Result(f"{name}, exported", model.net["name"], float(difference), note="strict=True")


def embeddings(model: StoredModel, pixels: np.ndarray) -> np.ndarray:
    """Return the normalised embeddings (N, E) of uint8 images (N, H, W, 3), computed by MXNet."""
    images = (pixels.transpose(0, 3, 1, 2).astype(np.float32) - normalization.MEAN) / np.float32(
        normalization.STD
    )
    found = build_stored_net(model)(mx.nd.array(images)).asnumpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def report(results: Iterator[Result]) -> int:
    """Print results, and return 1 if a difference is too large or a network is unexpected."""
    failed = 0
    print(f"{'network':28} {'imported as':16} {'difference':>10}  note")
    for name, net, difference, as_expected, note in results:
        wrong = not as_expected or not difference <= MAX_DIFFERENCE
        failed += wrong
        mark = "FAILED " if wrong else ""
        print(f"{name:28} {net:16} {difference:10.1e}  {mark}{note}", flush=True)
    print(f"{failed} failed; differences are of normalised embeddings, bound {MAX_DIFFERENCE:g}")
    return int(failed > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path, help="clone of insightface")
    parser.add_argument("--python", type=Path, required=True, help="interpreter with torch")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="networks to check")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return report(run(options.checkout, Path(folder), options.only, python=options.python))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Import GluonFR's networks, and compare their embeddings with GluonFR's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from interchange.read_gluonfr import read_gluonfr
from tools.interchange_checks.arcface_torch import IMAGES, difference
from tools.interchange_checks.result import Result

NETWORKS = {
    "classifier": "mobilefacenet",
    "headless": "mobilefacenet",
    "se": "gluonfr_mobilefacenet",
    "seresnet18": "seresnet18",
    "attention56": "attention56",
}
"""Mapping from a file's name without suffix, up to the first hyphen, to our name of the network."""
INPUTS = {"ToTensor": (0.0, 255.0), "(x - 127.5) / 127.5": (127.5, 127.5)}
"""Mapping from the name of a pixel normalisation to its mean and divisor."""


def run(checkout: Path, folder: Path, only: Sequence[str]) -> Iterator[Result]:
    """Yield the result of each parameter file with each pixel normalisation.

    Parameters
    ----------
    checkout
        Folder with the sources of GluonFR, in a subfolder gluonfr.
    folder
        Folder for the files of the models.
    only
        Names of parameter files, without suffix; an empty sequence for all.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 112, 112, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    worker = Path(__file__).with_name("gluonfr_worker.py")
    # Each network has its own process, because MXNet may crash if one process runs two networks
    # whose batch normalisations have equal shapes.
    for name in NETWORKS:
        if not only or any(each.split("-")[0] == name for each in only):
            command = [sys.executable, "-I", str(worker), str(checkout), str(folder), name]
            subprocess.run(command, check=True)
    for file in sorted(folder.glob("*.params")):
        if only and file.stem not in only:
            continue
        for title, (mean, std) in INPUTS.items():
            model = read_gluonfr(file, mean=mean, std=std)
            wanted = np.load(folder / f"{file.stem.split('-')[0]}-{mean:g}.npy")
            error = difference(model, pixels, wanted)
            expected = NETWORKS[file.stem.split("-")[0]]
            # Our networks expect pixels minus the mean 127.5.  If a model expects pixels minus
            # another mean, the import must adapt its first layer.  A batch normalisation can absorb
            # the difference (seresnet18).  A convolution cannot: it pads with zeros, and a zero
            # would stand for another pixel value.  So a model that begins with a convolution and
            # expects the mean 0 does not become one of our networks.  It is imported as a graph,
            # with a node before the first layer that converts the pixels.
            expected = "graph" if mean == 0 and not expected.startswith("seresnet") else expected
            as_expected = model.net["name"] == expected and bool(model.head) == (
                file.stem.startswith("classifier")
            )
            yield Result(file.stem, model.net["name"], error, as_expected, title)

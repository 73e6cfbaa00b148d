# SPDX-License-Identifier: Apache-2.0
"""Check the import of GluonFR's MobileFaceNet against GluonFR itself.

pip download --no-deps gluonfr==1.0.2 && tar xzf gluonfr-1.0.2.tar.gz
python -m tools.interchange_checks.gluonfr gluonfr-1.0.2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from interchange.read_gluonfr import read_gluonfr
from tools.interchange_checks.arcface_torch import IMAGES, embeddings, report
from tools.interchange_checks.result import Result

INPUTS = {"ToTensor": (0.0, 255.0), "(x - 127.5) / 127.5": (127.5, 127.5)}
"""Mapping from a name of an input to its mean and divisor."""


def run(checkout: Path, folder: Path, only: Sequence[str]) -> Iterator[Result]:
    """Yield the result of each file and input.

    Parameters
    ----------
    checkout
        Folder of the package's sources, which has the folder gluonfr.
    folder
        Folder for the files of the models.
    only
        Names of files without suffix; an empty sequence for all.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 112, 112, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    worker = Path(__file__).with_name("gluonfr_worker.py")
    subprocess.run([sys.executable, "-I", worker, checkout, folder], check=True)
    for file in sorted(folder.glob("*.params")):
        if only and file.stem not in only:
            continue
        for title, (mean, std) in INPUTS.items():
            model = read_gluonfr(file, mean=mean, std=std)
            wanted = np.load(folder / f"{file.stem.split('-')[0]}-{mean:g}.npy")
            difference = float(np.abs(embeddings(model, pixels) - wanted).max())
            expected = "graph" if mean == 0 else "mobilefacenet"
            as_expected = model.net["name"] == expected and bool(model.head) == (
                not file.stem.startswith("headless")
            )
            yield Result(file.stem, model.net["name"], difference, as_expected, title)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path, help="folder that contains the folder gluonfr")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="files to check")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return report(run(options.checkout, Path(folder), options.only))


if __name__ == "__main__":
    sys.exit(main())

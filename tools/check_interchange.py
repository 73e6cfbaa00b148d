# SPDX-License-Identifier: Apache-2.0
"""Check the import and export of models against the code of other projects.

Each check builds networks with the published code of one project, gives them random weights, and
saves them in the format of that project.  It then imports the files, and compares our embeddings
with those of the project.  Before the first check, clone InsightFace and unpack the sources of
GluonFR 1.0.2 from PyPI, outside the folder of this project.  Then run:

python tools/check_interchange.py insightface-symbols ~/insightface
python tools/check_interchange.py arcface-torch ~/insightface --python ~/torch/bin/python
python tools/check_interchange.py onnx ~/insightface --python ~/torch/bin/python
python tools/check_interchange.py gluonfr ~/gluonfr-1.0.2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from interchange.comparison import MAX_DIFFERENCE
from launch.config.paths import home_path
from tools.interchange_checks import arcface_torch, gluonfr, insightface_symbols, onnx_files

if TYPE_CHECKING:
    from tools.interchange_checks.result import Result


class Check(NamedTuple):
    """One check: help text, and the function that yields its results."""

    help: str
    """Networks and file formats that the check compares."""
    run: Callable[..., Iterator[Result]]
    """Function to call with the folder of the other project's sources, a folder for temporary
    files, and the names of the networks to check (empty: all)."""
    needs_python: bool = False
    """Whether ``run`` also takes ``python``, the interpreter of an environment with PyTorch."""


CHECKS = {
    "insightface-symbols": Check(
        "networks of InsightFace's recognition/arcface_mxnet, as MXNet symbol and parameters",
        insightface_symbols.run,
    ),
    "arcface-torch": Check(
        "networks of InsightFace's recognition/arcface_torch, as .pth and .safetensors",
        arcface_torch.run,
        needs_python=True,
    ),
    "onnx": Check(
        "networks of InsightFace's recognition/arcface_torch, imported from .onnx; also our "
        "exported .onnx files, run by the package insightface",
        onnx_files.run,
        needs_python=True,
    ),
    "gluonfr": Check("networks of GluonFR 1.0.2 from PyPI, as .params", gluonfr.run),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 1 if a check fails, else 0.

    A check fails if a difference is too large, or if an imported network is not the expected one.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    checks = parser.add_subparsers(dest="check", required=True)
    for name, check in CHECKS.items():
        command = checks.add_parser(name, help=check.help)
        command.add_argument(
            "checkout", type=home_path, help="folder with the sources of the other project"
        )
        command.add_argument(
            "--only",
            nargs="+",
            default=[],
            metavar="NAME",
            help="names of the networks to check (default: all)",
        )
        if check.needs_python:
            command.add_argument(
                "--python",
                type=home_path,
                required=True,
                help="interpreter of an environment with torch and safetensors; for the check onnx "
                "also with onnx, onnxscript, insightface and opencv-python-headless",
            )
    options = parser.parse_args(arguments)
    check = CHECKS[options.check]
    extra = {"python": options.python} if check.needs_python else {}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        results = check.run(options.checkout, Path(folder), options.only, **extra)
        print(f"{'network':28} {'imported as':16} {'difference':>10}  note")
        for result in results:
            failed += not result.difference <= MAX_DIFFERENCE or not result.as_expected
            mark = "" if result.as_expected else "UNEXPECTED NETWORK "
            print(
                f"{result.name:28} {result.net:16} {result.difference:10.1e}  {mark}{result.note}",
                flush=True,
            )
    print(
        f"{failed} failed; the largest permitted difference of normalised embeddings is "
        f"{MAX_DIFFERENCE:g}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Time single operators:  python benchmarks/operator_step.py [--torch PYTHON]

A step is forward and backward of PReLU with a slope per channel, or of batch normalisation followed
by PReLU, on a feature map of MobileFaceNet's first layers.  The candidates are our operators
(``face_prelu``, ``face_batch_norm``), Gluon's blocks and PyTorch's modules.  All of them get the
same inputs and must compute equal gradients of the slopes.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET, TORCH = "benchmarks.steps.mxnet_steps", "benchmarks.steps.torch_steps"
OPERATORS = ("prelu", "batch_norm_prelu")


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        default=[64, 64, 56, 56],
        metavar=("B", "C", "H", "W"),
        help="shape of the feature map: batch, channels, height, width (default: 64 64 56 56)",
    )
    arguments = parser.parse_args()
    groups = [group(operator, arguments.shape) for operator in OPERATORS]
    shape = "x".join(map(str, arguments.shape))
    return report.run(f"operators on {shape}: forward, backward", groups, arguments)


def group(operator: str, shape: list[int]) -> list[Candidate]:
    """Return the implementations of one operator to compare: ours, Gluon's and PyTorch's."""
    settings = {"what": "operator", "operator": operator, "shape": shape}
    candidates = [
        Candidate(f"{kind} {operator}", MXNET, {"kind": kind, **settings}, same_value=True)
        for kind in ("ours", "gluon")
    ]
    return [*candidates, Candidate(f"torch {operator}", TORCH, settings, "torch", same_value=True)]


if __name__ == "__main__":
    sys.exit(main())

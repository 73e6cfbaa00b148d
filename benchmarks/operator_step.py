# SPDX-License-Identifier: Apache-2.0
"""Time single operators:  python benchmarks/operator_step.py [--torch PYTHON]

A step is forward and backward of PReLU with a slope per channel, or of batch normalisation followed
by PReLU, on a feature map of MobileFaceNet's first layers.  The candidates are our operators
(``face_prelu``, ``face_batch_norm``), Gluon's blocks and PyTorch's modules.  All get the same
inputs, and their gradients of the slopes must be equal.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET, TORCH = "benchmarks.steps.mxnet_steps", "benchmarks.steps.torch_steps"
OPERATORS = ("prelu", "batch_norm_prelu")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        default=[64, 64, 56, 56],
        metavar=("B", "C", "H", "W"),
        help="shape of the feature map (64 64 56 56)",
    )
    arguments = parser.parse_args()
    groups = [group(operator, arguments.shape) for operator in OPERATORS]
    shape = "x".join(map(str, arguments.shape))
    return report.run(f"operators on {shape}: forward, backward", groups, arguments)


def group(operator: str, shape: list[int]) -> list[Candidate]:
    """Return the candidates of one operator."""
    settings = {"what": "operator", "operator": operator, "shape": shape}
    candidates = [
        Candidate(f"{kind} {operator}", MXNET, {"kind": kind, **settings}, same_value=True)
        for kind in ("ours", "gluon")
    ]
    return [*candidates, Candidate(f"torch {operator}", TORCH, settings, "torch", same_value=True)]


if __name__ == "__main__":
    sys.exit(main())

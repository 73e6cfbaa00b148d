# SPDX-License-Identifier: Apache-2.0
"""Time an ArcFace head alone:  python benchmarks/head_step.py [--torch PYTHON]

A step is forward, backward and the update of the class centres by SGD with momentum and weight
decay.  All implementations get the same random embeddings and class centres, and their first losses
must be equal.  In the row ``ours fused update``, our head updates its class centres without storing
their gradients.  In the rows of all other heads, the update takes about the same time, so the
differences between these heads are in the rest of the step.  Therefore the table also shows the
time without the update.  In the row ``gluonfr``, as in GluonFR's training script, the block
NormDense is hybridized and the block ArcLoss is not.  In the row ``gluonfr hybridized``, both
blocks are hybridized.  The row ``limit four GEMMs`` computes only the matrix products, with NumPy's
OpenBLAS.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET, TORCH, NUMPY = (f"benchmarks.steps.{name}_steps" for name in ("mxnet", "torch", "numpy"))


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--classes",
        type=int,
        default=85_742,
        help="number of classes (default: 85742, as in MS1M-ArcFace)",
    )
    parser.add_argument(
        "--many-classes",
        type=int,
        default=1_000_000,
        help="number of classes of the last row, our head with fused update (default: 1000000)",
    )
    parser.add_argument(
        "--embedding-sizes",
        type=int,
        nargs="+",
        default=[128, 512],
        help="embedding sizes to measure (default: 128 512)",
    )
    parser.add_argument(
        "--batch", type=int, default=128, help="embeddings per batch (default: 128)"
    )
    arguments = parser.parse_args()
    groups = [
        group(arguments.classes, size, arguments.batch, everything=not arguments.quick)
        for size in arguments.embedding_sizes
    ]
    size = arguments.embedding_sizes[0]
    groups.append([fused_update(arguments.many_classes, size, arguments.batch)])
    return report.run("ArcFace head: forward, backward, update", groups, arguments)


def group(num_classes: int, size: int, batch: int, everything: bool) -> list[Candidate]:
    """Return the ArcFace heads to compare at one embedding size, as `Candidate` objects.

    Parameters
    ----------
    everything
        Include GluonFR's head with both blocks hybridized.
    """
    settings: dict[str, Any] = {"num_classes": num_classes, "embedding_size": size, "batch": batch}
    label = f"C={num_classes} d={size} B={batch}"

    def mxnet(kind: str, needs: str = "") -> Candidate:
        both = {"what": "head", "kind": kind, **settings}
        return Candidate(f"{kind} {label}", MXNET, both, needs, images=batch, same_value=True)

    candidates = [
        mxnet("ours"),
        fused_update(num_classes, size, batch),
        mxnet("gluonfr", "gluonfr"),
    ]
    if everything:
        candidates.append(mxnet("gluonfr hybridized", "gluonfr"))
    torch = {"what": "head", **settings}
    candidates.append(
        Candidate(f"torch {label}", TORCH, torch, "torch", images=batch, same_value=True)
    )
    candidates.append(Candidate(f"limit four GEMMs {label}", NUMPY, settings, images=batch))
    return candidates


def fused_update(num_classes: int, size: int, batch: int) -> Candidate:
    """Return our head that updates its class centres without storing their gradients."""
    settings = {"num_classes": num_classes, "embedding_size": size, "batch": batch}
    name = f"ours fused update C={num_classes} d={size} B={batch}"
    return Candidate(
        name,
        MXNET,
        {"what": "head", "kind": "ours fused update", **settings},
        images=batch,
        same_value=True,
    )


if __name__ == "__main__":
    sys.exit(main())

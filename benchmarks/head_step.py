# SPDX-License-Identifier: Apache-2.0
"""How long an ArcFace head takes alone:  python benchmarks/head_step.py [--torch PYTHON]

Forward, backward and the update of the class centres by SGD with momentum and weight decay, on the
same random embeddings and centres for every candidate; the first losses must be equal.  Most of an
update is memory traffic and it is the same for all but our fused one, so the time without it is
shown too.  `limit four GEMMs` is the matrix products alone, as OpenBLAS does them in NumPy.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET, TORCH, NUMPY = (f"benchmarks.steps.{name}_steps" for name in ("mxnet", "torch", "numpy"))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--classes", type=int, default=85_742, help="C (85742, MS1M-ArcFace)")
    parser.add_argument("--many-classes", type=int, default=1_000_000, help="of the last group")
    parser.add_argument("--embedding-sizes", type=int, nargs="+", default=[128, 512], help="d")
    parser.add_argument("--batch", type=int, default=128, help="B (128)")
    arguments = parser.parse_args()
    groups = [
        group(arguments.classes, size, arguments.batch, everything=not arguments.quick)
        for size in arguments.embedding_sizes
    ]
    size = arguments.embedding_sizes[0]
    groups.append([fused_update(arguments.many_classes, size, arguments.batch)])
    return report.run("ArcFace head: forward, backward, update", groups, arguments)


def group(num_classes: int, size: int, batch: int, everything: bool) -> list[Candidate]:
    """Return the candidates at one length of embedding; everything: also GluonFR's second form."""
    settings = {"num_classes": num_classes, "embedding_size": size, "batch": batch}
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
    """Return ours with the update in the head, which keeps no gradient of the class centres."""
    settings = {"num_classes": num_classes, "embedding_size": size, "batch": batch}
    settings |= {"what": "head", "kind": "ours fused update"}
    name = f"ours fused update C={num_classes} d={size} B={batch}"
    return Candidate(name, MXNET, settings, images=batch, same_value=True)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Compare the step time of each loss with that of ArcFace:  python benchmarks/loss_cost.py

A step is forward, backward and update of a head alone, without a network.  The heads are those of
the folder heads/, with default settings.  All heads get the same random embeddings; a batch has
four embeddings of each of its classes.  The losses are timed in groups.  Each group includes
ArcFace, and the column ``x ours`` shows the time of a loss divided by the time of ArcFace.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET = "benchmarks.steps.mxnet_steps"
GROUP_LOSSES = 6  # A group is small, because all its losses are in memory at once.


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    from heads import HEADS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--classes", type=int, default=10_000, help="number of classes (default: 10000)"
    )
    parser.add_argument(
        "--embedding-size", type=int, default=128, help="embedding size (default: 128)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=128,
        help="embeddings per batch, a multiple of 4 (default: 128)",
    )
    arguments = parser.parse_args()
    size = {
        "num_classes": arguments.classes,
        "embedding_size": arguments.embedding_size,
        "batch": arguments.batch,
    }
    names = [name for name in HEADS if name != "arcface"]
    parts = [names[i : i + GROUP_LOSSES] for i in range(0, len(names), GROUP_LOSSES)]
    groups = [
        [candidate(name, size, f" {chr(ord('a') + place)}") for name in ["arcface", *part]]
        for place, part in enumerate(parts)
    ]
    return report.run("losses: forward, backward, update", groups, arguments)


def candidate(name: str, size: dict[str, int], group: str) -> Candidate:
    """Return the `Candidate` for one loss.

    Every group has a row for ArcFace.  To distinguish these rows, their names contain the text
    ``group``, which is " a" for the first group.
    """
    label = f"C={size['num_classes']} d={size['embedding_size']} B={size['batch']}"
    settings = {"what": "loss", "name": name, "options": {}, **size}
    row_name = f"ours {name}{group if name == 'arcface' else ''} {label}"
    return Candidate(row_name, MXNET, settings, images=size["batch"])


if __name__ == "__main__":
    sys.exit(main())

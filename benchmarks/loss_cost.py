# SPDX-License-Identifier: Apache-2.0
"""What a step of each loss costs beside ArcFace:  python benchmarks/loss_cost.py

Forward, backward and update of each head of heads/ alone, at its defaults, on the same random
embeddings, four images of each person in the batch.  ArcFace is timed with each group, and the
column of ratios is to that one.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MXNET = "benchmarks.steps.mxnet_steps"
TOGETHER = 6  # candidates of a group beside ArcFace: all of a group are in memory at once


def main() -> int:
    """Run the command line."""
    from heads import HEADS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--classes", type=int, default=10_000, help="C (10000)")
    parser.add_argument("--embedding-size", type=int, default=128, help="d (128)")
    parser.add_argument("--batch", type=int, default=128, help="B (128), a multiple of 4")
    arguments = parser.parse_args()
    size = {
        "num_classes": arguments.classes,
        "embedding_size": arguments.embedding_size,
        "batch": arguments.batch,
    }
    names = [name for name in HEADS if name != "arcface"]
    parts = [names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER)]
    groups = [
        [candidate(name, size, f" {chr(ord('a') + place)}") for name in ["arcface", *part]]
        for place, part in enumerate(parts)
    ]
    return report.run("losses: forward, backward, update", groups, arguments)


def candidate(name: str, size: dict[str, int], part: str) -> Candidate:
    """Return the row of one loss; ``part`` tells ArcFace's rows apart."""
    label = f"C={size['num_classes']} d={size['embedding_size']} B={size['batch']}"
    settings = {"what": "loss", "name": name, "options": {}, **size}
    shown = f"ours {name}{part if name == 'arcface' else ''} {label}"
    return Candidate(shown, MXNET, settings, images=size["batch"])


if __name__ == "__main__":
    sys.exit(main())

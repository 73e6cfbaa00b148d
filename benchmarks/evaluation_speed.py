# SPDX-License-Identifier: Apache-2.0
"""Time the evaluation protocols:  python benchmarks/evaluation_speed.py

The benchmark prints three groups of results.  The data sizes of each group are those of a public
protocol.  Each group has an upper bound of the speed, the row ``limit ...``, which times only the
part of the work that no implementation can avoid:

search     1,000 probes against 1,000,000 distractors, which are read from a file; limit: the
           matrix product alone
templates  469,376 embeddings summed into 23,124 templates; limit: reading the embeddings once
pairs      scores of 15,658,489 pairs of templates; limit: gather and product in NumPy

The column ``of limit ...`` shows the time of the limit divided by the time of the row.  The
distractors need 2 GB in the temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import report
from benchmarks.harness.process import Candidate
from benchmarks.steps.evaluation_steps import random_rows

MODULE = "benchmarks.steps.evaluation_steps"
FILE_ROWS = 50_000
PRODUCT, READING, GATHER = "limit matrix product", "limit reading", "limit gather and product"
QUICK_PART = 20
"""With ``--quick``, the benchmark uses one in 20 of the distractors, images and pairs."""


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    for name, default, what in (
        ("probes", 1000, "probes"),
        ("distractors", 1_000_000, "distractors"),
        ("images", 469_376, "images of the templates"),
        ("templates", 23_124, "templates"),
        ("pairs", 15_658_489, "pairs of templates"),
        ("embedding-size", 512, "values of an embedding"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"number of {what} (default: {default})",
        )
    arguments = parser.parse_args()
    for name in ("probes", "distractors", "images", "templates", "pairs", "embedding_size"):
        if (value := getattr(arguments, name)) < 1:
            option = name.replace("_", "-")
            print(
                f"evaluation_speed: --{option}: must be 1 or more, got {value}; omit the option "
                "to use its default",
                file=sys.stderr,
            )
            return 2
    if arguments.quick:
        for name in ("distractors", "images", "pairs"):
            setattr(arguments, name, max(1, getattr(arguments, name) // QUICK_PART))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distractors.npy"
        write_rows(path, arguments.distractors, arguments.embedding_size)
        return report.run(
            "evaluation protocols",
            groups(arguments, path),
            arguments,
            limits=(PRODUCT, READING, GATHER),
        )


def write_rows(path: Path, count: int, size: int) -> None:
    """Write random rows of unit length, (count, size) float32, to an .npy file in blocks."""
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, size))
    for start in range(0, count, FILE_ROWS):
        part = rows[start : start + FILE_ROWS]
        part[:] = random_rows(len(part), size, 100 + start)
    rows.flush()


def groups(arguments: argparse.Namespace, path: Path) -> list[list[Candidate]]:
    """Return `Candidate` objects in three groups, each with our code and its upper bound."""

    def row(name: str, kind: str, **settings: object) -> Candidate:
        return Candidate(name, MODULE, {"kind": kind, "size": arguments.embedding_size, **settings})

    search = {"path": str(path), "probes": arguments.probes}
    images = {"images": arguments.images}
    pooled = {**images, "templates": arguments.templates}
    pairs = {"pairs": arguments.pairs, "templates": arguments.templates}
    return [
        [
            row("ours rank-1", "rank", **search),
            row("ours MegaFace, rank-1 and ROC", "megaface", **search),
            row(PRODUCT, "product", count=arguments.distractors, probes=arguments.probes),
        ],
        [
            row("ours templates", "templates", shuffled=False, **pooled),
            row("ours templates, shuffled images", "templates", shuffled=True, **pooled),
            row(READING, "reading", **images),
        ],
        [
            row("ours pairs", "pairs", bare=False, **pairs),
            row(GATHER, "pairs", bare=True, **pairs),
        ],
    ]


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""How many images per second a loader gives:  python benchmarks/loader_throughput.py

Everyone reads the same record set (made in data/loader_bench if there is none, or ``--records``)
and gives the same: normalised, mirrored float32 NCHW in an array of its framework that can be read.
Limits: libjpeg-turbo alone, DALI's decoder alone, our decoder alone, our conversion alone.
``--cold`` times ours on a file that is not in memory: each turn drops it, starts the loader and
goes through an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import record_set, report
from benchmarks.harness.process import CORES, Candidate
from benchmarks.harness.timing import Result
from launch.config.paths import home_path

OURS = {"ours random-access": "random", "ours window": "window", "ours blocks": "blocks"}
MXNET, TORCH = "benchmarks.steps.loader_steps", "benchmarks.steps.torch_loader_steps"
RAW, DALI, CONVERT = "limit raw-decode", "limit dali-decode", "limit convert"
NATIVE = "limit native-decode"
STEP_IMAGES = 512
# Of a turn from disk, at most: an epoch of a set that is not larger.  Nothing is read twice in it,
# and the start of the loader is part of it: that of a run is a smaller one.
COLD_IMAGES = 80_000
COLD_SECONDS = 200.0  # of a whole run from disk, if not given; the set is made before
COLD_COLUMNS = (*report.RATE_COLUMNS, ("from disk MiB", "disk_mib", "{:,.1f}"))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--records", type=home_path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch (128)")
    parser.add_argument("--cold", action="store_true", help="ours alone, from the disk")
    arguments = parser.parse_args()
    repeated = arguments.cold and not arguments.quick
    with record_set.prepared(arguments.records, arguments.batch, repeated) as (*files, batch):
        if arguments.cold:
            arguments.seconds = arguments.seconds or (0 if arguments.quick else COLD_SECONDS)
            return report.run(
                "loaders, from the disk",
                [cold_group(*files, batch)],
                arguments,
                rates=True,
                columns=COLD_COLUMNS,
                result_of=ColdResult,
            )
        rows = group(*files, batch)
        if arguments.quick:
            rows = [row for row in rows if row.settings.get("workers", 0) in (0, CORES)]
        limits = (RAW, DALI, NATIVE, CONVERT)
        return report.run("loaders", [rows], arguments, limits=limits, rates=True)


def group(records: Path, image_rec: Path, batch: int) -> list[Candidate]:
    """Return all loaders, ours first.

    Parameters
    ----------
    records, image_rec, batch
        As `record_set.prepared` yields them.
    """
    batches = max(1, round(STEP_IMAGES / batch))

    shared = {"image_rec": str(image_rec), "batch": batch, "batches": batches}
    images = batch * batches

    def row(name: str, kind: str, workers: int = 0, needs: str = "") -> Candidate:
        settings = {"kind": kind, "records": str(records), "scratch": str(image_rec.parent)}
        settings |= {"workers": workers, **shared}
        return Candidate(name, MXNET, settings, needs, images=images, steady=True)

    def torch(name: str, kind: str, workers: int) -> Candidate:
        settings = {"kind": kind, "workers": workers, **shared}
        return Candidate(name, TORCH, settings, "torch", images=images, steady=True)

    threads = [*(n for n in (1, 2, 4, 8, 16, 32) if n < CORES), CORES]
    workers = [0, *threads]
    rows = [row(name, kind) for name, kind in OURS.items()]
    rows += [row("ours random-access dali", "random-dali"), row("ours window dali", "window-dali")]
    rows += [row("ours decoded-cache", "cache")]
    rows += [row(f"gluon dataloader transforms workers={n}", "transforms", n) for n in workers]
    rows += [row(f"gluon dataloader cv2 workers={n}", "cv2", n) for n in workers]
    rows += [row(f"imagerecorditer threads={n}", "iterator", n) for n in [*threads, 2 * CORES]]
    rows += [row(f"imagerecorditer threads=1 parts={CORES}", "iterators", CORES)]
    rows += [row("synthetic", "synthetic"), row(RAW, "raw", needs="simplejpeg")]
    rows += [row(DALI, "dali"), row(NATIVE, "native"), row(CONVERT, "convert")]
    rows += [torch(f"torch dataloader cv2 workers={n}", "dataloader", n) for n in workers]
    rows += [torch(f"ffcv threads={n}", "ffcv", n) for n in threads]
    return rows


def cold_group(records: Path, image_rec: Path, batch: int) -> list[Candidate]:
    """Return ours from disk; a step is an epoch, or COLD_IMAGES of it.

    Parameters
    ----------
    records, image_rec, batch
        As `record_set.prepared` yields them.
    """
    with open(image_rec.with_suffix(".idx")) as lines:
        batches = min(COLD_IMAGES, sum(1 for _ in lines)) // batch
    settings = {"records": str(records), "image_rec": str(image_rec)}
    settings |= {"scratch": str(image_rec.parent), "batch": batch, "batches": batches}
    return [
        Candidate(
            name=name,
            module=MXNET,
            settings={**settings, "kind": kind, "cold": True},
            images=batch * batches,
            steady=True,
        )
        for name, kind in OURS.items()
    ]


@dataclass
class ColdResult(Result):
    """Figures of a loader that reads from disk: turns are a step, none is untimed."""

    disk_mib: list[float] = field(default_factory=list)

    @property
    def needed_s(self) -> float:
        """Return the seconds that must remain for a later turn."""
        return self.expected

    def first_turn(self) -> None:
        """Go through an epoch."""
        self.turn(1, 0)

    def later_turn(self) -> None:
        """Go through an epoch."""
        self.turn(1, 0)

    def turn(self, steps: int, untimed: int = 0) -> dict[str, Any]:
        """Take down how much came from the disk, too."""
        answer = super().turn(steps, untimed)
        self.disk_mib.append(answer["disk_mib"])
        return answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the row of the JSON."""
        return super().row(ours) | {"cold": True, "disk_mib": statistics.median(self.disk_mib)}


if __name__ == "__main__":
    sys.exit(main())

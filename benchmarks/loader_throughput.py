# SPDX-License-Identifier: Apache-2.0
"""Measure the images per second of loaders:  python benchmarks/loader_throughput.py

All loaders read the same record set: ``--records``, or a synthetic set in data/loader_bench that
the first run generates.  All loaders yield the same kind of batch: randomly mirrored, normalised
float32 NCHW images, in an array of the loader's framework that is ready to read.  Rows that begin
with ``limit`` are upper bounds, which run one stage of a loader alone.  ``--cold`` times our
loaders on a file that is not in the page cache: each measurement drops the file from the page
cache, starts the loader and reads an epoch.
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
# With --cold, each timing of a loader reads at most this number of images, and no image twice.  The
# time includes the start of the loader.
MAX_COLD_IMAGES = 80_000
COLD_SECONDS = 200.0  # Default time limit with --cold; writing the record set takes extra time.
COLD_COLUMNS = (*report.RATE_COLUMNS, ("from disk MiB", "disk_mib", "{:,.1f}"))


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--records", type=home_path, help="folder of the record set (default: synthetic)"
    )
    parser.add_argument("--batch", type=int, default=128, help="images per batch (default: 128)")
    parser.add_argument(
        "--cold",
        action="store_true",
        help="time only our loaders, each round with the files dropped from the page cache",
    )
    arguments = parser.parse_args()
    repeated = arguments.cold and not arguments.quick
    with record_set.prepared_set(arguments.records, arguments.batch, repeated) as prepared:
        records, image_rec, batch = prepared
        if arguments.cold:
            arguments.seconds = arguments.seconds or (0 if arguments.quick else COLD_SECONDS)
            return report.run(
                "loaders that read from the disk",
                [cold_group(records, image_rec, batch)],
                arguments,
                rates=True,
                columns=COLD_COLUMNS,
                result_of=ColdResult,
            )
        rows = group(records, image_rec, batch)
        if arguments.quick:
            rows = [row for row in rows if row.settings.get("workers", 0) in (0, CORES)]
        limits = (RAW, DALI, NATIVE, CONVERT)
        return report.run("loaders", [rows], arguments, limits=limits, rates=True)


def group(records: Path, image_rec: Path, batch: int) -> list[Candidate]:
    """Return a `Candidate` for each loader and each upper bound, our loaders first.

    Parameters
    ----------
    records, image_rec, batch
        Folder of the record set, path of its .rec, and batch size, as `record_set.prepared_set`
        yields them.
    """
    batches = max(1, round(STEP_IMAGES / batch))
    shared: dict[str, Any] = {"image_rec": str(image_rec), "batch": batch, "batches": batches}
    images = batch * batches

    def row(name: str, kind: str, workers: int = 0, needs: str = "") -> Candidate:
        settings: dict[str, Any] = {"kind": kind, "workers": workers, **shared}
        settings |= {"records": str(records), "scratch": str(image_rec.parent)}
        return Candidate(name, MXNET, settings, needs, images=images, steady=True)

    def torch(name: str, kind: str, workers: int) -> Candidate:
        settings: dict[str, Any] = {"kind": kind, "workers": workers, **shared}
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
    """Return our loaders as `Candidate` objects that read from disk, not from the page cache.

    A step of a candidate reads an epoch, but at most MAX_COLD_IMAGES images.

    Parameters
    ----------
    records, image_rec, batch
        Folder of the record set, path of its .rec, and batch size, as `record_set.prepared_set`
        yields them.
    """
    with open(image_rec.with_suffix(".idx")) as lines:
        batches = min(MAX_COLD_IMAGES, sum(1 for _ in lines)) // batch
    settings: dict[str, Any] = {"records": str(records), "image_rec": str(image_rec)}
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
    """Measurements of a loader that reads from disk, one timed epoch after another."""

    disk_mib: list[float] = field(default_factory=list)

    @property
    def needed_s(self) -> float:
        """Return the expected seconds of another epoch: the median of the epochs so far."""
        return self.step_s

    def first_turn(self) -> None:
        """Time the reading of the first epoch."""
        self.turn(1, 0)

    def later_turn(self) -> None:
        """Time the reading of another epoch."""
        self.turn(1, 0)

    def turn(self, steps: int, untimed: int = 0) -> dict[str, Any]:
        """Time ``steps`` epochs, and record how many MiB the kernel read from disk."""
        answer = super().turn(steps, untimed)
        self.disk_mib.append(answer["disk_mib"])
        return answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the measurements as a result row, with the median MiB read from disk."""
        return super().row(ours) | {"cold": True, "disk_mib": statistics.median(self.disk_mib)}


if __name__ == "__main__":
    sys.exit(main())

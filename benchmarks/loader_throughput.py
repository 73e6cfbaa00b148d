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
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import record_set, report
from benchmarks.harness.process import CORES, Candidate
from benchmarks.harness.timing import Result
from launch.config.paths import home_path
from pipeline.records.index_cache import write_image_index
from pipeline.records.open import open_records

OURS = {"ours random-access": "random", "ours window": "window", "ours blocks": "blocks"}
MXNET, TORCH = "benchmarks.steps.loader_steps", "benchmarks.steps.torch_loader_steps"
RAW, DALI, CONVERT = "limit raw-decode", "limit dali-decode", "limit convert"
NATIVE = "limit native-decode"
STEP_IMAGES = 512
# Of a turn from the disk, at most: an epoch of a set that is not larger.  Nothing is read twice in
# it, and the start of the loader is part of it: that of a run is a smaller one.
COLD_IMAGES = 80_000
COLD_SECONDS = 200.0  # of a whole run from the disk, if not told otherwise; the set is made before
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
    with prepared(arguments.records, arguments.batch, repeated) as (records, pictures, batch):
        if arguments.cold:
            arguments.seconds = arguments.seconds or (0 if arguments.quick else COLD_SECONDS)
            candidates = cold_group(records, pictures, batch)
            options: dict[str, Any] = {"columns": COLD_COLUMNS, "result_of": ColdResult}
            return report.run(
                "loaders, from the disk", [candidates], arguments, (), True, **options
            )
        candidates = group(records, pictures, batch)
        if arguments.quick:
            candidates = [
                candidate
                for candidate in candidates
                if candidate.settings.get("workers", 0) in (0, CORES)
            ]
        return report.run(
            "loaders", [candidates], arguments, (RAW, DALI, NATIVE, CONVERT), rates=True
        )


@contextmanager
def prepared(
    given: Path | None, batch: int, repeated: bool = False
) -> Iterator[tuple[Path, Path, int]]:
    """Yield a record set, a .rec of it whose .idx lists pictures alone, and the size of a batch.

    The .rec lies in a scratch folder, which keeps the parsed index, too.

    Parameters
    ----------
    given
        The set; made in data/loader_bench, if need be, where there is none.
    batch
        Images of a batch that are asked for; fewer if the set has no more.
    repeated
        Where there is none, one with each picture several times.
    """
    # Candidates run in another folder.
    records = given.resolve() if given else record_set.made_set()
    if repeated and not given:
        records = record_set.repeated_set(records)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures.rec"
        opened = open_records(records, scratch)
        write_image_index(opened, pictures.with_suffix(".idx"))
        pictures.symlink_to(opened.files[0].resolve())
        if batch > len(opened):
            print(f"batches of {len(opened)}, not {batch}: the set has no more images")
        yield records, pictures, min(batch, len(opened))


def group(records: Path, pictures: Path, batch: int) -> list[Candidate]:
    """Return all loaders, ours first.

    Parameters
    ----------
    records, pictures, batch
        As `prepared` yields them.
    """
    batches = max(1, round(STEP_IMAGES / batch))

    def row(name: str, kind: str, workers: int = 0, needs: str = "") -> Candidate:
        settings = {"kind": kind, "records": str(records), "pictures": str(pictures)}
        settings |= {"scratch": str(pictures.parent), "batch": batch, "batches": batches}
        settings |= {"workers": workers}
        return Candidate(name, MXNET, settings, needs, images=batch * batches, steady=True)

    ours = [row(name, kind) for name, kind in OURS.items()]
    workers = [0, *(n for n in (1, 2, 4, 8, 16, 32) if n < CORES), CORES]
    rows = [
        *ours,
        row("ours random-access dali", "random-dali"),
        row("ours decoded-cache", "cache"),
        *(row(f"gluon dataloader transforms workers={n}", "transforms", n) for n in workers),
        *(row(f"gluon dataloader cv2 workers={n}", "cv2", n) for n in workers),
        *(row(f"imagerecorditer threads={n}", "iterator", n) for n in [*workers[1:], 2 * CORES]),
        row(f"imagerecorditer threads=1 parts={CORES}", "iterators", CORES),
        row("synthetic", "synthetic"),
        row(RAW, "raw", needs="simplejpeg"),
        row(DALI, "dali"),
        row(NATIVE, "native"),
        row(CONVERT, "convert"),
    ]
    for name, kind, many in (
        ("torch dataloader cv2 workers", "dataloader", workers),
        ("ffcv threads", "ffcv", workers[1:]),
    ):
        for n in many:
            settings = {"kind": kind, "pictures": str(pictures), "batch": batch, "workers": n}
            settings["batches"] = batches
            images = batch * batches
            rows.append(
                Candidate(f"{name}={n}", TORCH, settings, "torch", images=images, steady=True)
            )
    return rows


def cold_group(records: Path, pictures: Path, batch: int) -> list[Candidate]:
    """Return ours from the disk; a step is an epoch, as far as it is not longer than COLD_IMAGES.

    Parameters
    ----------
    records, pictures, batch
        As `prepared` yields them.
    """
    with open(pictures.with_suffix(".idx")) as lines:
        batches = min(COLD_IMAGES, sum(1 for _ in lines)) // batch
    settings = {"records": str(records), "pictures": str(pictures)}
    settings |= {"scratch": str(pictures.parent), "batch": batch, "batches": batches}
    return [
        Candidate(
            *(name, MXNET, {**settings, "kind": kind, "cold": True}),
            images=batch * batches,
            steady=True,
        )
        for name, kind in OURS.items()
    ]


@dataclass
class ColdResult(Result):
    """What was measured of a loader that reads from the disk: turns are a step, none is untimed."""

    disk_mib: list[float] = field(default_factory=list)

    @property
    def needed_s(self) -> float:
        """Return the seconds that must be left for a later turn."""
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

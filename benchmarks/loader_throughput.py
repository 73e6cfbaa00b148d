# SPDX-License-Identifier: Apache-2.0
"""How many images per second a loader gives:  python benchmarks/loader_throughput.py

Everyone reads the same record set (made in data/loader_bench if there is none, or ``--records``)
and gives the same: normalised, mirrored float32 NCHW in an array of its framework that can be read.
Ceilings: libjpeg-turbo alone, DALI's decoder alone, our conversion alone.  ``--cold`` times ours on
a file that is not in memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import record_set, report
from benchmarks.process import CORES, Rival
from pipeline.records import open_records, write_image_index

MXNET, TORCH = "benchmarks.loader_steps", "benchmarks.torch_loader_steps"
RAW, DALI, CONVERT = "limit raw-decode", "limit dali-decode", "limit convert"
STEP_IMAGES = 512
COLD_STEPS = 2048  # images of a step without a warm cache: the time of the start is part of it


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--records", type=Path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch (128)")
    parser.add_argument("--cold", action="store_true", help="ours alone, from the disk")
    arguments = parser.parse_args()
    with prepared(arguments.records) as (records, pictures):
        rivals = group(records, pictures, arguments.batch, arguments.cold)
        if arguments.quick:
            rivals = [rival for rival in rivals if rival.settings.get("workers", 0) in (0, CORES)]
        limits = () if arguments.cold else (RAW, DALI, CONVERT)
        return report.run("loaders", [rivals], arguments, limits, rates=True)


@contextmanager
def prepared(given: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield a record set and a .rec of it, in a scratch folder, whose .idx lists pictures alone.

    Parameters
    ----------
    given
        The set; made in data/loader_bench, if need be, where there is none.
    """
    records = given or record_set.made_set()
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures.rec"
        opened = open_records(records, scratch)
        write_image_index(opened, pictures.with_suffix(".idx"))
        pictures.symlink_to(opened.files[0].resolve())
        yield records, pictures


def group(records: Path, pictures: Path, batch: int, cold: bool = False) -> list[Rival]:
    """Return all loaders, ours first.

    Parameters
    ----------
    pictures
        A .rec of the set, in a scratch folder, whose .idx lists pictures alone.
    """
    batches = max(1, round((COLD_STEPS if cold else STEP_IMAGES) / batch))

    def row(name: str, kind: str, workers: int = 0, needs: str = "") -> Rival:
        own = pictures.with_name(name.replace(" ", "-"))
        own.mkdir()
        settings = {"kind": kind, "records": str(records), "pictures": str(pictures)}
        settings |= {"scratch": str(own), "batch": batch, "batches": batches}
        settings |= {"workers": workers, "cold": cold}
        return Rival(name, MXNET, settings, needs, images=batch * batches, steady=True)

    ours = [row("ours random-access", "random"), row("ours window", "window")]
    ours.append(row("ours blocks", "blocks"))
    if cold:
        return ours
    workers = [0, *(n for n in (1, 2, 4, 8, 16, 32) if n < CORES), CORES]
    rows = [
        *ours,
        row("ours decoded-cache", "cache"),
        *(row(f"gluon dataloader transforms workers={n}", "transforms", n) for n in workers),
        *(row(f"gluon dataloader cv2 workers={n}", "cv2", n) for n in workers),
        *(row(f"imagerecorditer threads={n}", "iterator", n) for n in [*workers[1:], 2 * CORES]),
        row("synthetic", "synthetic"),
        row(RAW, "raw", needs="simplejpeg"),
        row(DALI, "dali"),
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
            rows.append(Rival(f"{name}={n}", TORCH, settings, "torch", images=images, steady=True))
    return rows


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Measure the time and memory to open a large record set:  python benchmarks/record_index.py

The benchmark writes two sets into a temporary folder (3 GB): one with the size of MS1M-ArcFace
(5,822,653 images of 85,742 identities, with header and identity records) and one with 40 million
images.  An image holds 16 zero bytes, to keep the .rec small.  Processes open each set as
run_train.py does: the first process parses the index and caches it; the later processes map the
cached index into memory.  Each process works like a rank: it computes in which order one of the
readers random and blocks reads the images of two epochs, and looks up the images in the index (of
the first epoch, only 262,144 images).  All processes with the same reader must compute the same
order.  A last process writes the .idx file that a run with data.reader=window needs.  ``--open``
also measures an existing set.

The stated memory is the growth of a process since its imports.  As in a run, malloc does not return
freed memory to the system (launch/ranks/malloc.py).  "resident" is the resident memory in the
second epoch.  Its part "private" belongs to the process; its part "shared" consists of pages of
mapped files, which all ranks of a host share.  "peak" is the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.baselines import ROOT
from launch.config.paths import home_path
from pipeline.records import RecordSet
from pipeline.records.index_cache import write_image_index

NUM_PEOPLE, NUM_IMAGES = 85_742, [5_822_653, 40_000_000]
IMAGE_BYTES = 16
MAGIC = 0xCED7230A
MEMORY_KEYS = ("resident_mib", "private_mib", "shared_mib", "peak_mib")


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=NUM_IMAGES,
        help="number of images of each synthetic set (default: 5822653 40000000)",
    )
    parser.add_argument(
        "--people",
        type=int,
        default=NUM_PEOPLE,
        help="number of identities of each synthetic set (default: 85742)",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=3,
        help="number of times to open the cached index with each of the readers random and blocks "
        "(default: 3)",
    )
    parser.add_argument(
        "--open", type=home_path, help="folder of an existing record set to measure as well"
    )
    parser.add_argument(
        "--json",
        type=home_path,
        help="JSON file to write with the machine description and the result rows",
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "set"
            folder.mkdir()
            write_empty_set(folder, images, arguments.people)
            rows += measure("synthetic", folder, Path(scratch) / "index", arguments.repeat)
    if arguments.open:
        with tempfile.TemporaryDirectory() as scratch:
            name = str(arguments.open)
            rows += measure(name, arguments.open, Path(scratch), arguments.repeat)
    if arguments.json:
        machine = {"platform": platform.platform(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


def measure(name: str, path: Path, scratch: Path, repeat: int) -> list[dict[str, Any]]:
    """Measure the opening of one record set; print and return its result rows.

    Parameters
    ----------
    scratch
        Folder for the cached index.
    repeat
        Number of times to open the cached index with each of the readers random and blocks.

    Raises
    ------
    SystemExit
        If two processes computed different orders of the images.
    """
    first = _open(path, scratch, "random")
    again = {
        what: [_open(path, scratch, what) for _ in range(repeat)] for what in ("random", "blocks")
    }
    index = _open(path, scratch, "index")
    for what, found in {**again, "random": [first, *again["random"]]}.items():
        if len({one["digest"] for one in found}) > 1:
            raise SystemExit(
                f"{path}: the processes computed different orders of the images for the reader "
                f"{what}; the record set may have changed, so run the benchmark again"
            )
    rows = [
        _row(f"ours {name}, opening, first time", [first], "open"),
        _row(f"ours {name}, opening, again", again["random"] + again["blocks"], "open"),
        _row(f"ours {name}, order of random", again["random"], "seconds"),
        _row(f"ours {name}, order of blocks", again["blocks"], "seconds"),
        _row(f"ours {name}, window index, once", [index], "seconds"),
    ]
    for row in rows:
        print(
            f"{row['name']:46} {row['images']:10,} images  {row['milliseconds']:6.0f} ms "
            f"({row['spread'][0]:.0f} to {row['spread'][1]:.0f})  {row['resident_mib']:5.0f} MiB "
            f"per rank ({row['private_mib']:.0f} private, {row['shared_mib']:.0f} shared), "
            f"peak {row['peak_mib']:.0f} MiB",
            flush=True,
        )
    return rows


def _row(name: str, found: list[dict[str, Any]], timed: str) -> dict[str, Any]:
    seconds = [one[timed] for one in found]
    return {
        "name": name,
        "images": found[0]["images"],
        "milliseconds": 1000 * statistics.median(seconds),
        "spread": [1000 * min(seconds), 1000 * max(seconds)],
        **dict(
            zip(
                MEMORY_KEYS,
                np.median([one["memory"] for one in found], axis=0).tolist(),
                strict=True,
            )
        ),
        "memory_is_kept": found[0]["keeps"],
    }


def write_empty_set(folder: Path, images: int, people: int) -> None:
    """Write a record set in InsightFace's layout, with ``images`` images of ``people`` identities.

    The images consist of zero bytes, and all records have the same size.  The docstring of
    pipeline/records/writer.py describes the layout.
    """
    counts = np.full(people, images // people)
    counts[: images % people] += 1
    ends = np.cumsum(counts) + 1
    record = np.dtype(
        [("magic", "<u4"), ("length", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("ids", "<u8", 2)]
        + [("rest", "u1", IMAGE_BYTES)]
    )
    total = 1 + images + people
    table = np.zeros(total, dtype=record)
    table["magic"], table["length"] = MAGIC, 24 + IMAGE_BYTES
    table["label"][1 : images + 1] = np.repeat(np.arange(people), counts)
    table["ids"][:, 0] = np.arange(total)
    # Header and identity records hold two float32 labels and no image.
    imageless = np.r_[0, images + 1 : total]
    table["flag"][imageless], table["length"][imageless] = 2, 24 + 8
    pairs = np.concatenate([[[images + 1, total]], np.stack([ends - counts, ends], axis=1)])
    table["rest"][imageless, :8] = pairs.astype("<f4").view("u1").reshape(-1, 8)
    table.tofile(folder / "train.rec")
    keys = np.arange(total)
    all_records = RecordSet(
        files=(folder / "train.rec",),
        file=np.zeros(total, np.int16),
        keys=keys,
        offsets=keys * record.itemsize,
        labels=np.zeros(total, np.int32),
        num_classes=people,
        image_size=(112, 112),
    )
    write_image_index(all_records, folder / "train.idx")
    (folder / "property").write_text(f"{people},112,112\n")


def _open(path: Path, scratch: Path, what: str) -> dict[str, Any]:
    """Start a process that opens a record set as a training run does; return what it measured."""
    command = [sys.executable, "-m", "benchmarks.steps.record_opening"]
    command += [str(path.resolve()), str(scratch), what]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())

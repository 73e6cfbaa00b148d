# SPDX-License-Identifier: Apache-2.0
"""What a full-size record set costs a rank:  python benchmarks/record_index.py

Makes a set of the size of MS1M-ArcFace (5,822,653 images of 85,742 people, with header and identity
records; the images are 16 bytes of nothing, so that the .rec is small) and one of 40 million in a
scratch folder (3 GB) and opens each as run_train.py does: for the first time, when the index is
parsed and kept, and again.  Then makes the orders of two epochs and visits every image, as the
loader does, and writes the window reader's index.  Each opening is a rank: all must find the same
order.  ``--open`` also opens a set of your own.

Memory is what a process has grown by since its imports.  As in a run, freed memory stays with the
process (launch/ranks/malloc.py).  "resident" is what it holds in its second epoch: "private" is
its own, "shared" are pages of mapped files, which the ranks of a host have once.  "peak" is the
most that it held at once, both together.
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

import numpy as np

from benchmarks.harness.baselines import ROOT
from launch.config.paths import home_path
from pipeline.records import RecordSet
from pipeline.records.index_cache import write_image_index

PEOPLE, IMAGES = 85_742, [5_822_653, 40_000_000]
BODY_BYTES = 16
MAGIC = 0xCED7230A
MEMORY = ("resident_mib", "private_mib", "shared_mib", "peak_mib")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--repeat", type=int, default=3, help="openings after the first one (3)")
    parser.add_argument("--open", type=home_path, help="a record set of your own, opened as well")
    parser.add_argument("--json", type=home_path, help="write the rows here")
    arguments = parser.parse_args()
    rows = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "set"
            made.mkdir()
            write_hollow_set(made, images, arguments.people)
            rows += measure("synthetic", made, Path(scratch) / "kept", arguments.repeat)
    if arguments.open:
        with tempfile.TemporaryDirectory() as scratch:
            name = str(arguments.open)
            rows += measure(name, arguments.open, Path(scratch), arguments.repeat)
    if arguments.json:
        machine = {"platform": platform.platform(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


def measure(name: str, path: Path, kept: Path, repeat: int) -> list[dict]:
    """Return the rows of one set, and print them.

    Raises
    ------
    SystemExit
        If the openings found different orders.
    """
    first = _open(path, kept, "random")
    again = {
        what: [_open(path, kept, what) for _ in range(repeat)] for what in ("random", "blocks")
    }
    index = _open(path, kept, "index")
    for what, found in {**again, "random": [first, *again["random"]]}.items():
        if len({one["digest"] for one in found}) > 1:
            raise SystemExit(f"{path}: the ranks found different orders of {what}")
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
            f"a rank ({row['private_mib']:.0f} private, {row['shared_mib']:.0f} shared), "
            f"peak {row['peak_mib']:.0f}",
            flush=True,
        )
    return rows


def _row(name: str, found: list[dict], timed: str) -> dict:
    seconds = [one[timed] for one in found]
    return {
        "name": name,
        "images": found[0]["images"],
        "milliseconds": 1000 * statistics.median(seconds),
        "spread": [1000 * min(seconds), 1000 * max(seconds)],
        **dict(
            zip(MEMORY, np.median([one["memory"] for one in found], axis=0).tolist(), strict=True)
        ),
        "memory_is_kept": found[0]["keeps"],
    }


def write_hollow_set(folder: Path, images: int, people: int) -> None:
    """Write an InsightFace set whose images hold zeros, all records of one length but the last.

    Record, image and identity layout: pipeline/records/writer.py.
    """
    counts = np.full(people, images // people)
    counts[: images % people] += 1
    ends = np.cumsum(counts) + 1
    record = np.dtype(
        [("magic", "<u4"), ("length", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("ids", "<u8", 2)]
        + [("rest", "u1", BODY_BYTES)]
    )
    total = 1 + images + people
    table = np.zeros(total, dtype=record)
    table["magic"], table["length"] = MAGIC, 24 + BODY_BYTES
    table["label"][1 : images + 1] = np.repeat(np.arange(people), counts)
    table["ids"][:, 0] = np.arange(total)
    # Header and identity records hold two float labels in the place of an image.
    bare = np.r_[0, images + 1 : total]
    table["flag"][bare], table["length"][bare] = 2, 24 + 8
    pairs = np.concatenate([[[images + 1, total]], np.stack([ends - counts, ends], axis=1)])
    table["rest"][bare, :8] = pairs.astype("<f4").view("u1").reshape(-1, 8)
    table.tofile(folder / "train.rec")
    places = np.arange(total)
    everything = RecordSet(
        files=(folder / "train.rec",),
        file=np.zeros(total, np.int16),
        keys=places,
        offsets=places * record.itemsize,
        labels=np.zeros(total, np.int32),
        num_classes=people,
        image_size=(112, 112),
    )
    write_image_index(everything, folder / "train.idx")
    (folder / "property").write_text(f"{people},112,112\n")


def _open(path: Path, scratch: Path, what: str) -> dict:
    """Open a set in a process of its own, as a run has it: nothing is in its memory."""
    command = [sys.executable, "-m", "benchmarks.steps.record_opening"]
    command += [str(path.resolve()), str(scratch), what]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())

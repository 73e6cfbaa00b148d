# SPDX-License-Identifier: Apache-2.0
"""How long a full-size record set takes to open:  python benchmarks/record_index.py

Makes a set of the size of MS1M-ArcFace (5,822,653 images of 85,742 people, with header and identity
records; the pictures are 16 bytes of nothing, so that the .rec is small) in a scratch folder and
opens it as run_train.py does: for the first time, when the index is parsed and kept, and again.
``--open`` also opens a set of your own.
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

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

PEOPLE, IMAGES = 85_742, 5_822_653
BODY_BYTES = 16
MAGIC = 0xCED7230A

# Each opening in a process of its own, as a run has it: nothing is in its memory.
OPEN = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy
from pipeline.records import open_records
start = time.perf_counter()
records = open_records(sys.argv[2], sys.argv[3])
end = time.perf_counter()
print(json.dumps({"seconds": end - start, "images": len(records), "people": records.num_classes}))
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--repeat", type=int, default=5, help="openings after the first one (5)")
    parser.add_argument("--open", type=Path, help="a record set of your own, opened as well")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "set"
        made.mkdir()
        write_hollow_set(made, arguments.images, arguments.people)
        for path in [made, *([arguments.open] if arguments.open else [])]:
            kept = Path(scratch) / f"kept-{len(rows)}"
            first, *again = (_open(path, kept) for _ in range(arguments.repeat + 1))
            name = "synthetic" if path == made else str(path)
            seconds = sorted(found["seconds"] for found in again)
            for what, times in (("first time", [first["seconds"]]), ("again", seconds)):
                row = {"name": f"ours {name}, {what}", "images": first["images"]}
                row["milliseconds"] = 1000 * statistics.median(times)
                row["spread"] = [1000 * times[0], 1000 * times[-1]]
                rows.append(row)
                print(
                    f"{row['name']:32} {row['images']:9,} images  {row['milliseconds']:8.0f} ms "
                    f"({row['spread'][0]:.0f} to {row['spread'][1]:.0f})"
                )
    if arguments.json:
        machine = {"platform": platform.platform(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def write_hollow_set(folder: Path, images: int, people: int) -> None:
    """Write an InsightFace set whose pictures hold zeros, all records of one length but the last.

    Record, image and identity layout: pipeline/record_writer.py.
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
    # Header and identity records hold two float labels in the place of a picture.
    bare = np.r_[0, images + 1 : total]
    table["flag"][bare], table["length"][bare] = 2, 24 + 8
    pairs = np.concatenate([[[images + 1, total]], np.stack([ends - counts, ends], axis=1)])
    table["rest"][bare, :8] = pairs.astype("<f4").view("u1").reshape(-1, 8)
    table.tofile(folder / "train.rec")
    offsets = np.arange(total) * record.itemsize
    np.savetxt(folder / "train.idx", np.stack([np.arange(total), offsets], 1), "%d", "\t")
    (folder / "property").write_text(f"{people},112,112\n")


def _open(path: Path, kept: Path) -> dict:
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", OPEN, root, str(path), str(kept)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


if __name__ == "__main__":
    main()

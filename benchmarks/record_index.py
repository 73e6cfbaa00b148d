# SPDX-License-Identifier: Apache-2.0
"""What a full-size record set costs a rank:  python benchmarks/record_index.py [--images 40000000]

Makes a set of the size of MS1M-ArcFace (5,822,653 images of 85,742 people, with header and identity
records; the pictures are 16 bytes of nothing, so that the .rec is small) in a scratch folder and
opens it as run_train.py does: for the first time, when the index is parsed and kept, and again.
Then makes the orders of epochs and visits every image, as the loader does.  Each opening is a rank:
all must find the same order.  ``--open`` also opens a set of your own.
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
import hashlib, json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from pipeline import plans, sampling
from pipeline.augmentation import Augmentation, choose
from pipeline.records import open_records

def memory():
    with open("/proc/self/smaps_rollup") as lines:
        found = {line.split(":")[0]: int(line.split()[1]) for line in lines if "kB" in line}
    return np.array([found["Rss"], found["Anonymous"]]) / 1024

def timed(what, *arguments):
    start = time.perf_counter()
    value = what(*arguments)
    return value, time.perf_counter() - start

sampling.epoch_order(100, 1, 0)
before = memory()
records, opened = timed(open_records, sys.argv[2], sys.argv[3])
order, _ = timed(sampling.epoch_order, len(records), 1, 0)
digest = hashlib.sha256(order[:: max(1, len(order) // 10**6)].tobytes()).hexdigest()
del order
order, random = timed(sampling.epoch_order, len(records), 1, 1)
for rows in np.array_split(order, -(-len(order) // 4096)):
    rows = rows.astype(np.int64)
    choose(Augmentation(), records.ids(rows), 1, 1, (112, 112))
    records.offsets[rows], records.labels[rows]
mib, own = memory() - before
del order
order, blocks = timed(plans.Blocks(records, 1, 128, 16384).order, 1)
print(json.dumps({
    "open": opened, "random": random, "blocks": blocks, "mib": mib, "own_mib": own,
    "digest": digest, "images": len(records),
}))
"""


def main() -> int:
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
            if len({found["digest"] for found in [first, *again]}) > 1:
                print("failed: the ranks found different orders", file=sys.stderr)
                return 1
            name = "synthetic" if path == made else str(path)
            rows += [
                _row(f"ours {name}, opening, first time", first["images"], [first["open"]]),
                _row(f"ours {name}, opening, again", first["images"], [f["open"] for f in again]),
            ]
            for what in ("random", "blocks"):
                times = [found[what] for found in [first, *again]]
                rows.append(_row(f"ours {name}, order of {what}", first["images"], times))
            for what in ("mib", "own_mib"):
                rows[-2][what] = statistics.median(found[what] for found in again)
            for row in rows[-4:]:
                memory = "mib" in row and (
                    f"  {row['mib']:.0f} MiB a rank, {row['own_mib']:.0f} of them its own"
                )
                print(
                    f"{row['name']:36} {row['images']:10,} images  {row['milliseconds']:7.0f} ms "
                    f"({row['spread'][0]:.0f} to {row['spread'][1]:.0f}){memory or ''}"
                )
    if arguments.json:
        machine = {"platform": platform.platform(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


def _row(name: str, images: int, seconds: list[float]) -> dict:
    return {
        "name": name,
        "images": images,
        "milliseconds": 1000 * statistics.median(seconds),
        "spread": [1000 * min(seconds), 1000 * max(seconds)],
    }


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
    sys.exit(main())

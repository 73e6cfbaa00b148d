# SPDX-License-Identifier: Apache-2.0
"""Whether a loader can run for days:  python benchmarks/soak.py [--minutes 30] [--kind random]

Loads without pause and watches resident memory, file descriptors and threads; then starts loaders
and stops them at random moments.  Exit status 1 if memory still changes by more than 2 % after the
first sixth of the time, or if anything is left over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import record_set, report
from benchmarks.loader_steps import SOURCES, warm
from pipeline.decoded_cache import FOLDER, PREFIX

KINDS = ("random", "blocks", "window", "cache")
STEADY = 0.02  # largest change of resident memory, as a share
WARM_UP = 1 / 6  # of the time, after which memory must be steady
SAMPLE_S, FILL_S = 1.0, 3.0
MIB = 1 << 20


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of loading (30)")
    parser.add_argument("--kind", choices=KINDS, default="random", help="of loader (random)")
    parser.add_argument("--stops", type=int, default=30, help="loaders that are stopped (30)")
    parser.add_argument("--records", type=Path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch (128)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    records = arguments.records or record_set.made_set()
    warm()
    with tempfile.TemporaryDirectory() as scratch:

        def started() -> Iterator[Any]:
            return SOURCES[arguments.kind](records, scratch, arguments.batch, 0)

        row = watched(started(), arguments.batch, 60 * arguments.minutes)
        row |= stopped(started, arguments.stops)
    row = {"name": f"ours {arguments.kind}", **row}
    print(
        f"{row['name']}: {row['images']:,} images; after the first sixth of the time resident "
        f"memory {row['lowest_mib']:.1f} to {row['highest_mib']:.1f} MiB, a change of "
        f"{100 * row['change']:.2f} %; {row['stops']} loaders stopped, slowest "
        f"{row['slowest_stop_s']:.2f} s; left over: {row['left_over'] or 'nothing'}"
    )
    if arguments.json:
        found = {"machine": report.machine({}), "rows": [row]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if row["change"] > STEADY or row["left_over"] else 0


def watched(loader: Iterator[Any], batch: int, seconds: float) -> dict[str, Any]:
    """Take batches for some seconds; return how many images and how memory changed."""
    next(loader).wait_to_read()
    # As many batches as ever lie in memory at once, as where a step takes longer than a batch.
    time.sleep(FILL_S)
    begin = shown = time.monotonic()
    samples: list[tuple[float, float]] = []  # (seconds since the start, resident bytes)
    images = reported = 0
    while (now := time.monotonic()) - begin < seconds:
        for image in islice(loader, 8):
            image.wait_to_read()
            images += batch
        if not samples or now - begin > samples[-1][0] + SAMPLE_S:
            samples.append((now - begin, resident()))
        if now - shown >= min(60.0, seconds / 5):
            print(
                f"{(now - begin) / 60:5.1f} min  {samples[-1][1] / MIB:8.1f} MiB  "
                f"{len(os.listdir('/proc/self/fd'))} descriptors  {threading.active_count()} "
                f"threads of Python  {(images - reported) / (now - shown):8.0f} images/s",
                flush=True,
            )
            shown, reported = now, images
    loader.close()  # type: ignore[attr-defined]
    late = [size for at, size in samples if at >= WARM_UP * seconds]
    return {
        "minutes": seconds / 60,
        "images": images,
        "lowest_mib": min(late) / MIB,
        "highest_mib": max(late) / MIB,
        "change": max(late) / min(late) - 1,
        "every_minute_mib": [round(size / MIB, 1) for _, size in samples[::60]],
    }


def stopped(started: Any, count: int) -> dict[str, Any]:
    """Start loaders and stop them at random moments; return how long it took, what was left."""
    moments, slowest = random.Random(0), 0.0
    before = None
    for number in range(count + 1):
        loader = started()
        for image in islice(loader, moments.randrange(1, 20)):
            image.wait_to_read()
        time.sleep(moments.random() * 0.2)
        begin = time.monotonic()
        loader.close()
        slowest = max(slowest, time.monotonic() - begin)
        if not number:
            before = _held()  # what the first one opens for good, as libraries do, is no leak
    after = _held()
    assert before is not None
    left = [f"{after[what] - before[what]} {what}" for what in before if after[what] > before[what]]
    return {"stops": count, "slowest_stop_s": slowest, "left_over": ", ".join(left)}


def _held() -> dict[str, int]:
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "caches": len(list(FOLDER.glob(f"{PREFIX}*"))),
    }


def resident() -> float:
    """Return the bytes of this process that are in memory, mapped files included."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())

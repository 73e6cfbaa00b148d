# SPDX-License-Identifier: Apache-2.0
"""Whether loaders can run for days:  python benchmarks/soak.py [--minutes 30] [--kind random ...]

Loads without pause and watches resident memory, file descriptors and threads; then starts loaders
and stops them at random moments.  Exit status 1 if memory still changes by more than 2 % after the
first sixth of the time, if there are more descriptors or threads at the end than after it, or if
anything is left over.  Several kinds come one after the other, each in a process of its own and for
as long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import record_set, report
from benchmarks.harness.baselines import ROOT
from benchmarks.steps.loader_steps import SOURCES, warm
from launch.config.paths import home_path
from pipeline.decode.cache import FOLDER, PREFIX

KINDS = ("random", "blocks", "window", "cache")
STEADY = 0.02  # largest change of resident memory, as a share
WARM_UP = 1 / 6  # of the time, after which nothing may grow
SAMPLE_S, FILL_S = 1.0, 3.0
ENDING_S = 2.0  # after which nothing that a stopped loader had may be there
MIB = 1 << 20


class Sample(NamedTuple):
    """What this process held at some moment."""

    at: float
    """Seconds since the start."""
    resident: int
    """Bytes in memory, mapped files included."""
    descriptors: int
    threads: int


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of loading, each kind (30)")
    parser.add_argument(
        "--kind", nargs="+", choices=(*KINDS, "all"), default=["random"], help="of loader (random)"
    )
    parser.add_argument("--stops", type=int, default=30, help="loaders that are stopped (30)")
    parser.add_argument("--records", type=home_path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch (128)")
    parser.add_argument("--json", type=home_path, help="write the figures here")
    arguments = parser.parse_args()
    kinds = KINDS if "all" in arguments.kind else tuple(dict.fromkeys(arguments.kind))
    if len(kinds) > 1:
        rows, status = one_by_one(kinds, arguments)
    else:
        rows = [soaked(kinds[0], arguments)]
        status = report_of(rows[0])
    if arguments.json:
        found = {"machine": report.machine({}), "rows": rows}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return status


def one_by_one(
    kinds: Sequence[str], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], int]:
    """Soak kinds in processes of their own; return their rows and the exit status of all."""
    rows, status = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "rows.json"
        for kind in kinds:
            found.unlink(missing_ok=True)
            words: list[Any] = ["--kind", kind, "--json", found, "--minutes", arguments.minutes]
            words += ["--stops", arguments.stops, "--batch", arguments.batch]
            words += ["--records", arguments.records.resolve()] if arguments.records else []
            command = [sys.executable, __file__, *map(str, words)]
            status = max(status, abs(subprocess.run(command, cwd=ROOT).returncode))
            if found.exists():
                rows += json.loads(found.read_text())["rows"]
    return rows, status


def soaked(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load with a kind of loader, stop it often; return the row of the JSON."""
    warm()
    with record_set.prepared(arguments.records, arguments.batch) as (*files, batch):
        records, image_rec = files

        def started() -> Iterator[Any]:
            return SOURCES[kind](records, str(image_rec.parent), batch, 0)

        row = {"name": f"ours {kind}"} | watched(started(), batch, 60 * arguments.minutes)
        row |= stopped(started, arguments.stops)
    return row | {"failures": failures(row)}


def report_of(row: dict[str, Any]) -> int:
    """Print a row; return the exit status."""
    print(
        f"{row['name']}: {row['images']:,} images; after the first sixth of the time resident "
        f"memory {row['lowest_mib']:.1f} to {row['highest_mib']:.1f} MiB, a change of "
        f"{100 * row['change']:.2f} %; {row['descriptors_warm']} descriptors then, "
        f"{row['descriptors_end']} at the end, {row['threads_warm']} and {row['threads_end']} "
        f"threads; {row['stops']} loaders stopped, slowest {row['slowest_stop_s']:.2f} s; "
        f"left over: {row['left_over'] or 'nothing'}"
    )
    for sentence in row["failures"]:
        print(f"failed: {row['name']}: {sentence}", file=sys.stderr)
    return 1 if row["failures"] else 0


def failures(row: dict[str, Any]) -> list[str]:
    """Return a sentence for all that a loader which runs for days must not do."""
    found = []
    if row["change"] > STEADY:
        found.append(
            f"resident memory changes by {100 * row['change']:.2f} % after the warm-up, of which "
            f"{100 * STEADY:.0f} % are allowed"
        )
    for what in ("descriptors", "threads"):
        warm, end = row[f"{what}_warm"], row[f"{what}_end"]
        if end > warm:
            found.append(f"{what} grow, from {warm} after the warm-up to {end} at the end")
    if row["left_over"]:
        found.append(f"stopped loaders leave {row['left_over']}")
    return found


def watched(loader: Iterator[Any], batch: int, seconds: float) -> dict[str, Any]:
    """Take batches for some seconds; return how many images and what changed meanwhile."""
    # As many batches as ever lie in memory at once: the one that was taken, the last one, which
    # the loop below still names then, and all that are prefetched meanwhile.
    taken = list(islice(loader, 2))
    time.sleep(FILL_S)
    del taken
    begin = shown = time.monotonic()
    samples: list[Sample] = []
    images = reported = 0
    while (now := time.monotonic()) - begin < seconds:
        for image in islice(loader, 8):
            image.wait_to_read()
            images += batch
        if not samples or now - begin > samples[-1].at + SAMPLE_S:
            held = _held()
            samples.append(Sample(now - begin, resident(), held["descriptors"], held["threads"]))
        if now - shown >= min(60.0, seconds / 5):
            last = samples[-1]
            print(
                f"{(now - begin) / 60:5.1f} min  {last.resident / MIB:8.1f} MiB  "
                f"{last.descriptors} descriptors  {last.threads} threads  "
                f"{(images - reported) / (now - shown):8.0f} images/s",
                flush=True,
            )
            shown, reported = now, images
    loader.close()  # type: ignore[attr-defined]
    return {"minutes": seconds / 60, "images": images} | changes(samples, seconds)


def changes(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """Return what changed after the warm-up, as entries of the row.

    Of descriptors and threads it is the fewest in the time after the warm-up and in the end, each
    as long as the warm-up: some come and go, as those of a reader that an epoch has for itself,
    and those that are left over are in the fewest.
    """
    late = [sample for sample in samples if sample.at >= WARM_UP * seconds] or list(samples)
    warm = [sample for sample in late if sample.at < 2 * WARM_UP * seconds] or late[:1]
    end = [sample for sample in late if sample.at >= (1 - WARM_UP) * seconds] or late[-1:]
    sizes = [sample.resident for sample in late]
    return {
        "lowest_mib": min(sizes) / MIB,
        "highest_mib": max(sizes) / MIB,
        "change": max(sizes) / min(sizes) - 1,
        "descriptors_warm": min(sample.descriptors for sample in warm),
        "descriptors_end": min(sample.descriptors for sample in end),
        "threads_warm": min(sample.threads for sample in warm),
        "threads_end": min(sample.threads for sample in end),
        "every_minute_mib": [round(sample.resident / MIB, 1) for sample in samples[::60]],
    }


def stopped(started: Callable[[], Iterator[Any]], count: int) -> dict[str, Any]:
    """Start loaders and stop them at random moments; return how long it took, what was left."""
    moments, slowest = random.Random(0), 0.0
    before = None
    for number in range(count + 1):
        loader = started()
        for image in islice(loader, moments.randrange(1, 20)):
            image.wait_to_read()
        time.sleep(moments.random() * 0.2)
        begin = time.monotonic()
        loader.close()  # type: ignore[attr-defined]
        slowest = max(slowest, time.monotonic() - begin)
        if not number:
            before = _held()  # what the first one opens for good, as libraries do, is no leak
    assert before is not None
    # A thread that has been joined is still listed for a moment.
    after, end = _held(), time.monotonic() + ENDING_S
    while time.monotonic() < end and any(after[what] > before[what] for what in before):
        time.sleep(0.05)
        after = _held()
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

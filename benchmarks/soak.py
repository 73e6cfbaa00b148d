# SPDX-License-Identifier: Apache-2.0
"""Check the loaders for leaks:  python benchmarks/soak.py [--minutes 30] [--kind random ...]

The benchmark loads batches without a pause and samples resident memory, file descriptors and
threads.  Then it starts loaders and stops them at random moments.  The first sixth of the loading
is a warm-up.  The exit status is 1 if, after the warm-up, resident memory changes by more than 2 %
or the number of descriptors or threads grows, or if a stopped loader leaves descriptors, threads or
cache files.  If ``--kind`` names several kinds of loaders, they run one after the other, each in
its own process and for ``--minutes`` minutes.
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
MAX_CHANGE_FRACTION = 0.02
WARM_UP_FRACTION = 1 / 6
SAMPLE_S = 1.0
FILL_S = 3.0  # Every loader fills its prefetch queue within this time.
RELEASE_TIMEOUT_S = 2.0
MIB = 1 << 20


class Sample(NamedTuple):
    """Resources of this process at one moment."""

    at: float
    """Seconds since the start of the measurement."""
    resident: int
    """Resident bytes, including pages of mapped files."""
    descriptors: int
    threads: int


def main() -> int:
    """Parse the command line, test the loaders and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        help="minutes of loading with each kind of loader (default: 30)",
    )
    parser.add_argument(
        "--kind",
        nargs="+",
        choices=(*KINDS, "all"),
        default=["random"],
        help="kinds of loaders to test (default: random)",
    )
    parser.add_argument(
        "--stops", type=int, default=30, help="number of loaders to start and stop (default: 30)"
    )
    parser.add_argument(
        "--records", type=home_path, help="folder of the record set (default: synthetic)"
    )
    parser.add_argument("--batch", type=int, default=128, help="images per batch (default: 128)")
    report.add_json_option(parser)
    arguments = parser.parse_args()
    kinds = KINDS if "all" in arguments.kind else tuple(dict.fromkeys(arguments.kind))
    if len(kinds) > 1:
        rows, status = run_kinds(kinds, arguments)
    else:
        rows = [run_kind(kinds[0], arguments)]
        status = print_row(rows[0])
    if arguments.json:
        found = {"machine": report.machine({}), "rows": rows}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return status


def run_kinds(
    kinds: Sequence[str], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], int]:
    """Test each kind of loader in its own process; return result rows and highest exit status."""
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


def run_kind(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load batches, then start and stop loaders of one kind; return the result row."""
    warm()
    with record_set.prepared_set(arguments.records, arguments.batch) as prepared:
        records, image_rec, batch = prepared

        def start() -> Iterator[Any]:
            return SOURCES[kind](records, str(image_rec.parent), batch, 0)

        row = {"name": f"ours {kind}"} | watch(start(), batch, 60 * arguments.minutes)
        row |= stop_loaders(start, arguments.stops)
    return row | {"failures": failures(row)}


def print_row(row: dict[str, Any]) -> int:
    """Print a result row and its failures; return 1 if there are failures, else 0."""
    print(
        f"{row['name']}: {row['images']:,} images; resident memory after the warm-up "
        f"{row['lowest_mib']:.1f} to {row['highest_mib']:.1f} MiB, a change of "
        f"{100 * row['change']:.2f} %; {row['descriptors_warm']} descriptors after the warm-up and "
        f"{row['descriptors_end']} at the end; {row['threads_warm']} threads after the warm-up and "
        f"{row['threads_end']} at the end; {row['stops']} loaders stopped, the slowest in "
        f"{row['slowest_stop_s']:.2f} s; resources left by stopped loaders: "
        f"{row['left_over'] or 'none'}"
    )
    for sentence in row["failures"]:
        print(f"failed: {row['name']}: {sentence}", file=sys.stderr)
    return 1 if row["failures"] else 0


def failures(row: dict[str, Any]) -> list[str]:
    """Return a sentence for each leak that a result row shows."""
    found = []
    if row["change"] > MAX_CHANGE_FRACTION:
        found.append(
            f"resident memory changes by {100 * row['change']:.2f} % after the warm-up; the limit "
            f"is {100 * MAX_CHANGE_FRACTION:.0f} %"
        )
    for what in ("descriptors", "threads"):
        warm, end = row[f"{what}_warm"], row[f"{what}_end"]
        if end > warm:
            found.append(
                f"the number of {what} grows from {warm} after the warm-up to {end} at the end"
            )
    if row["left_over"]:
        found.append(f"stopped loaders leave resources behind: {row['left_over']}")
    return found


def watch(loader: Iterator[Any], batch: int, seconds: float) -> dict[str, Any]:
    """Load batches for ``seconds``; return the image count and how memory and threads changed."""
    # Before the first sample, reach the peak memory of the loop below: a full prefetch queue, and
    # two batches that the loop references while it takes the next batch.
    batches = list(islice(loader, 2))
    time.sleep(FILL_S)
    del batches
    begin = shown = time.monotonic()
    samples: list[Sample] = []
    images = reported = 0
    while (now := time.monotonic()) - begin < seconds:
        for image in islice(loader, 8):
            image.wait_to_read()
            images += batch
        if not samples or now - begin > samples[-1].at + SAMPLE_S:
            counts = _resource_counts()
            sample = Sample(now - begin, resident_bytes(), counts["descriptors"], counts["threads"])
            samples.append(sample)
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
    """Return how memory, descriptors and threads changed after the warm-up, for the result row.

    The numbers of descriptors and threads are minimums over two periods: one right after the
    warm-up and one at the end, each as long as the warm-up.  A minimum includes leaks, but no
    temporary resources, such as those of a reader that exists for one epoch.
    """
    late = [sample for sample in samples if sample.at >= WARM_UP_FRACTION * seconds] or list(
        samples
    )
    warm = [sample for sample in late if sample.at < 2 * WARM_UP_FRACTION * seconds] or late[:1]
    end = [sample for sample in late if sample.at >= (1 - WARM_UP_FRACTION) * seconds] or late[-1:]
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


def stop_loaders(start: Callable[[], Iterator[Any]], count: int) -> dict[str, Any]:
    """Start loaders and stop them at random moments; return what to add to the result row.

    The result states the seconds of the slowest stop and what the stopped loaders failed to close.
    """
    moments, slowest = random.Random(0), 0.0
    before = None
    for number in range(count + 1):
        loader = start()
        for image in islice(loader, moments.randrange(1, 20)):
            image.wait_to_read()
        time.sleep(moments.random() * 0.2)
        begin = time.monotonic()
        loader.close()  # type: ignore[attr-defined]
        slowest = max(slowest, time.monotonic() - begin)
        if not number:
            # Libraries open some files only once, while the first loader runs.  So count the
            # resources after the first loader.
            before = _resource_counts()
    assert before is not None
    # A thread that has ended remains in /proc for a moment, so count the resources repeatedly.
    after, end = _resource_counts(), time.monotonic() + RELEASE_TIMEOUT_S
    while time.monotonic() < end and any(after[what] > before[what] for what in before):
        time.sleep(0.05)
        after = _resource_counts()
    left = [f"{after[what] - before[what]} {what}" for what in before if after[what] > before[what]]
    return {"stops": count, "slowest_stop_s": slowest, "left_over": ", ".join(left)}


def _resource_counts() -> dict[str, int]:
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "caches": len(list(FOLDER.glob(f"{PREFIX}*"))),
    }


def resident_bytes() -> int:
    """Return the resident bytes of this process, including pages of mapped files."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())

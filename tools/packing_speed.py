# SPDX-License-Identifier: Apache-2.0
"""Compare the speed of packing images to a record set with the speed of copying the files.

python tools/packing_speed.py

The benchmark writes 50,000 JPEGs of 112x112 pixels in folders of 100 images, and reads all files
once, so that they are in the page cache.  Each round runs, in turn, ``python -m tools.data pack``,
``cp -r`` and ``shutil.copytree``.  Before the clock stops, the system call syncfs flushes the
output of the command to the disk.  The times of ``pack`` and ``shutil.copytree`` include the start
of Python.  The column "x ours" is the speed of a command divided by the speed of ``pack``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from launch.config.paths import home_path
from launch.environment.provenance import cpu_model
from tools.data.example_images import write_images

IMAGES_PER_PERSON = 100
ROUNDS = 5


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--images", type=int, default=50_000, help="number of images (default: 50000)"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"number of rounds (default: {ROUNDS})"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="number of processes of pack (default: one per core)",
    )
    parser.add_argument(
        "--json", type=home_path, help="JSON file for a description of the machine and the results"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packing-") as temporary:
        people = max(1, options.images // IMAGES_PER_PERSON)
        source = Path(temporary) / "images"
        count = write_images(source, people, IMAGES_PER_PERSON)
        times = measure(source, Path(temporary), options.rounds, options.processes)
    rows = summarize(times, count)
    print(f"{count} images, {options.processes} processes, {cpu_model()}\n")
    print(f"{'':24}{'seconds':>9}{'quartiles':>16}{'images/s':>10}{'x ours':>8}")
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['name']:24}{row['seconds']:9.2f}{low:9.2f} to {high:.2f}"
            f"{row['images_per_second']:10,.0f}{row['times_ours']:8.2f}"
        )
    if options.json:
        facts = {"machine": {"cpu": cpu_model(), "cores": os.cpu_count()}, "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


def measure(source: Path, folder: Path, rounds: int, processes: int) -> dict[str, list[float]]:
    """Return a dictionary from the name of each command to its seconds in each round."""
    pack = [sys.executable, "-m", "tools.data", "pack", str(source)]
    root = Path(__file__).resolve().parents[1]

    def run_pack(out: Path) -> None:
        command = [*pack, str(out), "--processes", str(processes)]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)

    candidates: dict[str, Callable[[Path], None]] = {
        "ours pack": run_pack,
        "cp -r": lambda out: _run(["cp", "-r", str(source), str(out)]),
        "shutil.copytree": lambda out: _copy_tree(source, out),
    }
    for path in source.rglob("*"):
        if path.is_file():
            path.read_bytes()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, store in candidates.items():
            out = folder / "out"
            _flush(folder)
            start = time.monotonic()
            store(out)
            _flush(folder)
            times[name].append(time.monotonic() - start)
            print(f"{name}: {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
            shutil.rmtree(out)
    return times


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _copy_tree(source: Path, out: Path) -> None:
    """Copy a folder in a separate process, because the other commands are processes too."""
    _run([sys.executable, "-c", f"import shutil; shutil.copytree({str(source)!r}, {str(out)!r})"])


def _flush(folder: Path) -> None:
    """Flush the file system that holds a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None).syncfs(descriptor):
            raise OSError(
                f"{folder}: syncfs cannot flush the file system of this folder, got an error; see "
                "the log of the kernel (dmesg)"
            )
    finally:
        os.close(descriptor)


def summarize(times: dict[str, list[float]], count: int) -> list[dict]:
    """Return a result row for each command, with the median and the quartiles of its seconds."""
    ours = statistics.median(times["ours pack"])
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
        rows.append(
            {
                "name": name,
                "seconds": median,
                "spread": [low, high],
                "images_per_second": count / median,
                "times_ours": ours / median,
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())

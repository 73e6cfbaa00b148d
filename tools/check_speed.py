# SPDX-License-Identifier: Apache-2.0
"""Compare the speed of ``python -m tools.data check`` with that of the JPEG decoder alone.

python tools/check_speed.py

The benchmark packs 57,600 different JPEGs of 112x112 pixels to a record set, or uses the record set
of ``--set``.  Each round runs ``python -m tools.data check``, and then a process that only decodes
all images to pixels.  Each of them has one decoder thread per core.  The time of the command
includes the start of Python.  The time of the decoder does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ops
from atomic_write import atomic_write
from launch.config.paths import home_path
from launch.environment.provenance import cpu_model
from pipeline.records.open import open_records
from pipeline.records.reader import BufferRing, RecordReader
from tools.data.decode_check import BATCH_IMAGES, default_threads
from tools.data.example_images import write_images

if TYPE_CHECKING:
    from ops.jpeg_decoder import Decoding

IMAGES_PER_PERSON = 100
ROUNDS = 7
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", type=home_path, help="record set to check (default: make one)")
    parser.add_argument(
        "--images",
        type=int,
        default=57_600,
        help="number of images in the set that is made without --set (default: 57600)",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"number of rounds (default: {ROUNDS})"
    )
    parser.add_argument(
        "--json", type=home_path, help="JSON file for a description of the machine and the results"
    )
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        print(decode(options.set))
        return 0
    with tempfile.TemporaryDirectory(prefix="check-") as temporary:
        records = options.set.resolve() if options.set else None
        records = records or make_set(Path(temporary), options.images)
        count = len(open_records(records, Path(temporary)))
        times = measure(records, options.rounds)
    figures = summarize(times, count)
    print(f"{count} images, {default_threads()} cores, {cpu_model()}")
    for name in times:
        low, high = figures[name]["spread"]
        rate = figures[name]["images_per_second"]
        print(f"{name:8}{rate:10,.0f} images/s (rounds of {low:.2f} to {high:.2f} s)")
    low, high = figures["quartiles"]
    print(f"ratio   {figures['ratio']:10.3f} (quartiles {low:.3f} to {high:.3f})")
    if options.json:
        facts = {"machine": {"cpu": cpu_model(), "cores": os.cpu_count()}, **figures}
        with atomic_write(options.json, "w") as file:
            file.write(json.dumps(facts, indent=1) + "\n")
    return 0


def make_set(folder: Path, images: int) -> Path:
    """Pack different JPEGs to a record set in a subfolder of ``folder``; return the subfolder."""
    write_images(folder / "images", max(1, images // IMAGES_PER_PERSON), IMAGES_PER_PERSON)
    command = [sys.executable, "-m", "tools.data", "pack", str(folder / "images")]
    command.append(str(folder / "set"))
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "set"


def measure(records: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round for the command ``check`` and for the decoder."""
    times: dict[str, list[float]] = {"check": [], "decoder": []}
    check = [sys.executable, "-m", "tools.data", "check", str(records)]
    alone = [sys.executable, str(Path(__file__).resolve()), "--decode", "--set", str(records)]
    for _ in range(rounds):
        start = time.monotonic()
        subprocess.run(check, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times["check"].append(time.monotonic() - start)
        done = subprocess.run(alone, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        times["decoder"].append(float(done.stdout))
        print(*(f"{name} {found[-1]:.2f} s" for name, found in times.items()), file=sys.stderr)
    return times


def decode(path: Path) -> float:
    """Decode all images of a record set to pixels with a thread per core; return the seconds."""
    with tempfile.TemporaryDirectory(prefix="check-") as temporary:
        records = open_records(path, Path(temporary))
    kernels = ops.compiled()
    if kernels is None:
        raise SystemExit(
            "check_speed: the compiled operators must be available, got none; run `make setup`"
        )
    reader, decoder = RecordReader(records, kernels), kernels.decoder(default_threads())
    size = records.image_size
    buffers = BufferRing(kept=1)
    in_flight: deque[Decoding] = deque()
    start = time.monotonic()
    for first in range(0, len(records), BATCH_IMAGES):
        rows = np.arange(first, min(first + BATCH_IMAGES, len(records)))
        out = buffers.take(len(rows), 3 * size[0] * size[1]).reshape(-1, *size, 3)
        in_flight.append(decoder.to_pixels(*reader.find(rows), size, out, reader))
        if len(in_flight) > 1:
            decoder.wait(in_flight.popleft())
    while in_flight:
        decoder.wait(in_flight.popleft())
    seconds = time.monotonic() - start
    decoder.close()
    return seconds


def summarize(times: dict[str, list[float]], count: int) -> dict[str, Any]:
    """Return the rates of the command and of the decoder, and their ratio as median and quartiles.

    The ratio of a round is the rate of the command divided by the rate of the decoder.
    """
    figures: dict[str, Any] = {
        name: {
            "seconds": statistics.median(seconds),
            "spread": [min(seconds), max(seconds)],
            "images_per_second": count / statistics.median(seconds),
        }
        for name, seconds in times.items()
    }
    ratios = [alone / ours for ours, alone in zip(times["check"], times["decoder"], strict=True)]
    figures["ratio"] = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    figures["quartiles"] = [low, high]
    return figures


if __name__ == "__main__":
    sys.exit(main())

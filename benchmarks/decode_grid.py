# SPDX-License-Identifier: Apache-2.0
"""Measure the speed of each decode mode on this machine:  python benchmarks/decode_grid.py

The decode modes are the values of the setting ``data.decode``.  The benchmark times each mode with
several thread counts and batch sizes, for at most 4 seconds per combination.  The timed work begins
with JPEG bytes in memory and ends with mirrored, normalised float32 NCHW arrays on the GPU.  On a
machine without a GPU, the benchmark times only the modes ``cpu`` and ``native``, and the arrays
stay in CPU memory.  Then the fastest mode and Gluon's DataLoader with OpenCV read the same record
set alternately, for about a second at a time.  The DataLoader's arrays always stay in CPU memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.harness import chart, record_set, report, timing
from benchmarks.harness.process import CORES, Candidate
from benchmarks.steps import graph_steps
from launch.config.paths import home_path
from launch.environment.gpu import Driver
from launch.environment.provenance import cpu_model, versions
from pipeline.decode.autotune import images_per_second
from pipeline.decode.dali import PATHS, release_memory
from pipeline.records import RecordError, RecordSet, open_records

GRAPH, MXNET = "benchmarks.steps.graph_steps", "benchmarks.steps.loader_steps"
SECONDS, QUICK_SECONDS = 360.0, 40.0  # Default time limits, without and with --quick.
BATCHES, THREADS = (128, 256, 512, 1024), (1, 2, 4, 8, 16)
MIN_CELL_S, MAX_CELL_S = 0.5, 4.0  # Shortest and longest timing of one combination of settings.
CELL_WINDOWS = 5  # Each combination is timed in 5 periods; the table shows the median rate.
STEP_IMAGES, GLUON_STEP_IMAGES = 2048, 512
COLUMNS = report.RATE_COLUMNS[:2]


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    arguments = parse_arguments()
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    device_id = 0 if count_gpus() else None
    smallest = min(arguments.batches or BATCHES)
    with record_set.prepared_set(arguments.records, smallest) as (folder, image_rec, batch):
        cells = list(
            product(
                ["cpu", "native"] if device_id is None else PATHS,
                arguments.threads or numbers_up_to(CORES, THREADS, arguments.quick),
                arguments.batches or (BATCHES[0::2] if arguments.quick else BATCHES),
            )
        )
        print(f"decode grid; {CORES} cores, {cpu_model()}, {describe_device(device_id)}")
        records = open_records(folder, image_rec.parent)
        rows, left_out = grid(records, cells, device_id=device_id, seconds=seconds / 2)
        if not rows:
            print("decode_grid: no decode mode works on this machine", file=sys.stderr)
            for sentence in left_out:
                print(f"left out: {sentence}", file=sys.stderr)
            return 1
        width = max(len(row["name"]) for row in rows)
        print("\n" + "\n".join(report.table(rows, width, COLUMNS)))
        candidates = group(folder, image_rec, rows[0], device_id, batch)
        print(
            f"\n{rows[0]['name']} (the fastest mode) and Gluon's DataLoader, timed alternately:",
            flush=True,
        )
        race = timing.race(candidates, seconds / 2, rounds=arguments.rounds)
    report.add_rates(race.rows, ())
    ours = [row["images_per_second"] for row in race.rows if row["name"] == rows[0]["name"]]
    # Compare rates, not times, because the number of images per step differs between the rows.
    for row in race.rows:
        row.pop("times_ours", None)
        if ours:
            row["times_ours"] = ours[0] / row["images_per_second"]
    width = max((len(row["name"]) for row in race.rows), default=0)
    print("\n".join(report.table(race.rows, width, report.RATE_COLUMNS)))
    for sentence in [*left_out, *race.left_out]:
        print(f"left out: {sentence}")
    if arguments.json:
        found = {
            "machine": report.machine({**versions(), **race.versions}),
            "device": describe_device(device_id),
            "rows": [*rows, *({**row, "raced": True} for row in race.rows)],
            "left_out": [*left_out, *race.left_out],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.plot:
        shown = [part for part in (rows, race.rows) if part]
        reason = chart.draw(shown, "decode modes", arguments.plot, True)
        print(reason or f"chart: {arguments.plot}")
    return 1 if race.failed else 0


def parse_arguments() -> argparse.Namespace:
    """Parse the command line and return its options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_basic_options(parser, SECONDS)
    parser.add_argument(
        "--records", type=home_path, help="folder of the record set (default: synthetic)"
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        help="batch sizes to measure (default: 128 256 512 1024)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        help="numbers of decoder threads to measure (default: those of 1 2 4 8 16 that are at most "
        "the number of CPU cores)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=timing.ROUNDS,
        help="largest number of rounds; one round times every loader once "
        f"(default: {timing.ROUNDS})",
    )
    return parser.parse_args()


def count_gpus() -> int:
    """Return the number of GPUs in this machine; 0 if the NVIDIA driver is missing."""
    try:
        return Driver().count()
    except OSError:
        return 0


def describe_device(device_id: int | None) -> str:
    """Describe where the batches are stored: on which GPU, or in CPU memory."""
    if device_id is None:
        return "no GPU: batches stay in CPU memory"
    return str(Driver().gpu(device_id))


def numbers_up_to(limit: int, numbers: Sequence[int], ends: bool) -> list[int]:
    """Return the elements of ``numbers`` that are at most ``limit``.

    If ``ends`` is true, return only the smallest and the largest of these elements.
    """
    found = [number for number in numbers if number <= limit]
    return sorted({found[0], found[-1]}) if ends else found


def grid(
    records: RecordSet,
    cells: Sequence[tuple[str, int, int]],
    *,
    device_id: int | None,
    seconds: float,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the images/s of each combination of decode mode, thread count and batch size.

    Parameters
    ----------
    cells
        Combinations to measure, as triples (decode mode, number of threads, batch size).
    device_id
        Number of the GPU that receives the batches; None for CPU memory.
    seconds
        Time limit in seconds for all combinations together.

    Returns
    -------
    tuple
        List of result rows, fastest first, and list of messages about the combinations that do not
        work on this machine.
    """
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for number, (path, threads, batch) in enumerate(cells):
        name = f"ours {path} threads={threads} B={batch}"
        start = time.monotonic()
        try:
            batches = graph_steps.warm_batches(
                records, path, batch=batch, threads=threads, device_id=device_id
            )
            remaining_s = (end - start) / (len(cells) - number) - (time.monotonic() - start)
            window_s = min(MAX_CELL_S, max(MIN_CELL_S, remaining_s)) / CELL_WINDOWS
            rates = [images_per_second(batches, batch, window_s) for _ in range(CELL_WINDOWS)]
            batches.close()
            del batches  # The DALI pipeline closes when its last reference is dropped.
        except (RuntimeError, RecordError) as error:
            message = " ".join(str(error).split()[:30])
            left_out.append(f"{name}: {message}")
            print(f"{number + 1:4} of {len(cells)}  {name}: decode mode not available", flush=True)
            continue
        finally:
            release_memory()
        low, rate, high = statistics.quantiles(rates, n=4, method="inclusive")
        rows.append(
            {
                "name": name,
                "path": path,
                "threads": threads,
                "batch": batch,
                "images_per_second": rate,
                "images_per_second_spread": [low, high],
                "milliseconds": 1000 * batch / rate,
            }
        )
        print(f"{number + 1:4} of {len(cells)}  {name:40} {rate:10,.0f} images/s", flush=True)
    return sorted(rows, key=lambda row: -row["images_per_second"]), left_out


def group(
    records: Path, image_rec: Path, best: dict[str, Any], device_id: int | None, batch: int
) -> list[Candidate]:
    """Return `Candidate` objects for our fastest decode mode and for Gluon DataLoaders.

    Parameters
    ----------
    records
        Folder of the record set.
    image_rec
        Path of a .rec with the images of the record set, in a temporary folder.  The .idx beside
        the .rec lists only image records.
    best
        Result row of our fastest decode mode, one of the rows that `grid` returns.
    batch
        Images per batch of each DataLoader.
    """
    scratch, steps = str(image_rec.parent), max(1, round(STEP_IMAGES / best["batch"]))
    settings = {"records": str(records), "scratch": scratch, "device_id": device_id}
    settings |= {key: best[key] for key in ("path", "threads", "batch")} | {"batches": steps}
    candidates = [
        Candidate(best["name"], GRAPH, settings, images=best["batch"] * steps, steady=True)
    ]
    steps = max(1, round(GLUON_STEP_IMAGES / batch))
    for workers in numbers_up_to(min(16, CORES), THREADS, False):
        settings = {"kind": "cv2", "records": str(records), "image_rec": str(image_rec)}
        settings |= {"scratch": scratch, "batch": batch, "batches": steps, "workers": workers}
        name = f"gluon dataloader cv2 workers={workers}"
        candidates.append(Candidate(name, MXNET, settings, images=batch * steps, steady=True))
    return candidates


if __name__ == "__main__":
    sys.exit(main())

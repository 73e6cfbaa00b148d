# SPDX-License-Identifier: Apache-2.0
"""How fast each decode mode is on this machine:  python benchmarks/decode_grid.py

Every path of ``data.decode`` with several numbers of threads and sizes of batches, each for a few
seconds, from JPEG bytes in memory to an MXNet array on the GPU: float32 NCHW, mirrored, normalised.
Without a GPU the paths ``cpu`` and ``native`` alone, which then end in the memory of the CPU.  Then
the best of them takes turns with Gluon's DataLoader over OpenCV, which reads the same set and ends
on the CPU.
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
SECONDS, QUICK_SECONDS = 360.0, 40.0  # of the whole run, half of them for the grid
BATCHES, THREADS = (128, 256, 512, 1024), (1, 2, 4, 8, 16)
MIN_CELL_S, MAX_CELL_S = 0.5, 4.0  # of a cell of the grid
WINDOWS = 5  # parts of that time; the median is printed
STEP_IMAGES, GLUON_STEP_IMAGES = 2048, 512
COLUMNS = report.RATE_COLUMNS[:2]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=home_path, help="write machine and rows here")
    parser.add_argument("--plot", type=home_path, help="draw the rows here, as PNG")
    parser.add_argument("--quick", action="store_true", help="be done within a minute")
    parser.add_argument("--seconds", type=float, help=f"for the whole run ({SECONDS:.0f})")
    parser.add_argument("--records", type=home_path, help="a record set of your own")
    parser.add_argument("--batches", type=int, nargs="+", help="images of a batch (128 to 1024)")
    parser.add_argument("--threads", type=int, nargs="+", help="decoder threads (1 to the cores)")
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS, help="of the race, at most")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    device_id = 0 if count_gpus() else None
    smallest = min(arguments.batches or BATCHES)
    with record_set.prepared(arguments.records, smallest) as (folder, image_rec, batch):
        cells = list(
            product(
                ["cpu", "native"] if device_id is None else PATHS,
                arguments.threads or up_to(CORES, THREADS, arguments.quick),
                arguments.batches or (BATCHES[0::2] if arguments.quick else BATCHES),
            )
        )
        print(f"decode grid; {CORES} cores, {cpu_model()}, {device(device_id)}")
        records = open_records(folder, image_rec.parent)
        rows, left_out = grid(records, cells, device_id=device_id, seconds=seconds / 2)
        if not rows:
            print("decode_grid: nothing can decode here", file=sys.stderr)
            return 1
        width = max(len(row["name"]) for row in rows)
        print("\n" + "\n".join(report.table(rows, width, COLUMNS)))
        candidates = group(folder, image_rec, rows[0], device_id, batch)
        print(
            f"\n{rows[0]['name']}, the best of them, and Gluon's DataLoader in turns:", flush=True
        )
        race = timing.race(candidates, seconds / 2, rounds=arguments.rounds)
    report.compare(race.rows, ())
    ours = [row["images_per_second"] for row in race.rows if row["name"] == rows[0]["name"]]
    for row in race.rows:  # steps are of different numbers of images
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
            "device": device(device_id),
            "rows": [*rows, *({**row, "raced": True} for row in race.rows)],
            "left_out": [*left_out, *race.left_out],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.plot:
        shown = [part for part in (rows, race.rows) if part]
        why = chart.draw(shown, "decode modes", arguments.plot, True)
        print(why or f"chart: {arguments.plot}")
    return 1 if race.failed else 0


def count_gpus() -> int:
    """Return the number of GPUs here."""
    try:
        return Driver().count()
    except OSError:
        return 0


def device(device_id: int | None) -> str:
    """Return where the batches end."""
    if device_id is None:
        return "no GPU: paths that end in the memory of the CPU"
    return str(Driver().gpu(device_id))


def up_to(most: int, numbers: Sequence[int], ends: bool) -> list[int]:
    """Return the numbers that are not above ``most``; the smallest and the largest, if ``ends``."""
    found = [number for number in numbers if number <= most]
    return sorted({found[0], found[-1]}) if ends else found


def grid(
    records: RecordSet,
    cells: Sequence[tuple[str, int, int]],
    *,
    device_id: int | None,
    seconds: float,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure one cell after the other; return the rows, the fastest first, and what cannot be.

    Parameters
    ----------
    cells
        (path, threads, images of a batch).
    device_id
        GPU on which the batches end; None for the memory of the CPU.
    seconds
        That all cells together may take.
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
            window_s = min(MAX_CELL_S, max(MIN_CELL_S, remaining_s)) / WINDOWS
            rates = [images_per_second(batches, batch, window_s) for _ in range(WINDOWS)]
            batches.close()
            del batches  # closes the graph
        except (RuntimeError, RecordError) as error:
            said = " ".join(str(error).split()[:30])
            left_out.append(f"{name}: {said}")
            print(f"{number + 1:4} of {len(cells)}  {name}: cannot", flush=True)
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
    """Return the best cell of the grid and the DataLoaders that it is held against.

    Parameters
    ----------
    image_rec
        A .rec of the set, in a scratch folder, whose .idx lists images alone.
    batch
        Images of a DataLoader's batch.
    """
    scratch, steps = str(image_rec.parent), max(1, round(STEP_IMAGES / best["batch"]))
    settings = {"records": str(records), "scratch": scratch, "device_id": device_id}
    settings |= {key: best[key] for key in ("path", "threads", "batch")} | {"batches": steps}
    candidates = [
        Candidate(best["name"], GRAPH, settings, images=best["batch"] * steps, steady=True)
    ]
    steps = max(1, round(GLUON_STEP_IMAGES / batch))
    for workers in up_to(min(16, CORES), THREADS, False):
        settings = {"kind": "cv2", "records": str(records), "image_rec": str(image_rec)}
        settings |= {"scratch": scratch, "batch": batch, "batches": steps, "workers": workers}
        name = f"gluon dataloader cv2 workers={workers}"
        candidates.append(Candidate(name, MXNET, settings, images=batch * steps, steady=True))
    return candidates


if __name__ == "__main__":
    sys.exit(main())

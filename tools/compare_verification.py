# SPDX-License-Identifier: Apache-2.0
"""Compare our verification with that of InsightFace and GluonFR: accuracy and speed on .bin files.

python tools/compare_verification.py --model RUN --sets A.bin B.bin C.bin \
    --insightface ~/insightface --gluonfr ~/gluonfr-1.0.2 --packages ~/oracles/lib/.../site-packages

The code of InsightFace and of GluonFR runs unmodified.  All three projects use the same MXNet
symbol on the CPU, in processes that run in turn.  A time includes reading, decoding, embedding and
scoring.  It excludes imports and the first forward pass.

InsightFace reports one accuracy for each set.  This accuracy is computed with mirror images, and
must equal our accuracy `flip`.  GluonFR's accuracy without mirror images must equal our accuracy
`no flip`.  GluonFR's accuracy with mirror images is printed, but not compared, for two reasons.
GluonFR concatenates the embeddings of an image and its mirror image, where we add them.  GluonFR's
script also never resets the metric with mirror images, so the figure of a set includes the pairs of
all earlier sets.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.pairs import read_pairs
from interchange.export import export_model
from interchange.open_model import open_model
from launch.config.paths import expand_home

WORKERS = {
    "ours": "our_worker.py",
    "insightface": "insightface_worker.py",
    "gluonfr": "gluonfr_verification_worker.py",
}
FOLDER = Path(__file__).parent / "evaluation_checks"
PATHS = {
    "model": "run folder, checkpoint folder, symbol prefix or model file",
    "insightface": "folder with a git clone of InsightFace",
    "gluonfr": "folder with the sources of GluonFR 1.0.2, in a subfolder gluonfr",
    "packages": "site-packages folder with scikit-learn and SciPy",
}
"""Mapping from each option with a path to its help text."""
TOLERANCE = 1e-6
MIN_SPEEDUP = 3.0
Results = Mapping[str, list[list[dict[str, Any]]]]
"""For each project: a list of rounds, each of which is a list with the result of each set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the projects; return 1 if an accuracy differs or a speedup is too small, else 0.

    A speedup is the time of another project divided by our time; it must be at least MIN_SPEEDUP.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, text in PATHS.items():
        parser.add_argument(f"--{name}", required=True, type=expand_home, help=text)
    parser.add_argument(
        "--sets", required=True, nargs="+", type=expand_home, help="verification sets, .bin files"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="number of images per batch (default: 64)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        settings = write_settings(options, Path(name))
        found: dict[str, list[list[dict[str, Any]]]] = {worker: [] for worker in WORKERS}
        for _ in range(options.rounds):
            for worker in WORKERS:
                found[worker].append(run_worker(worker, settings))
    return print_results([Path(path).stem for path in options.sets], found)


def write_settings(options: argparse.Namespace, folder: Path) -> Path:
    """Export the model as a symbol, copy the sets for GluonFR, and write the settings to a file.

    The copies store each encoded image as a string, as pickles of Python 2 do, because GluonFR
    reads no other pickles.  The function returns the path of the file with the settings.
    """
    model = open_model(options.model)
    export_model(model, folder / "model", format="symbol")
    copies = []
    for path in options.sets:
        pairs = read_pairs(path)
        images = [bytes(image).decode("iso-8859-1") for image in pairs.images]
        copies.append(folder / Path(path).name)
        copies[-1].write_bytes(pickle.dumps((images, pairs.issame.tolist()), protocol=2))
    settings = {
        "prefix": str(folder / "model"),
        "image_size": list(model.image_size),
        "batch_size": options.batch_size,
        "sets": [str(Path(path).absolute()) for path in options.sets],
        "gluonfr_sets": [str(path) for path in copies],
        **{key: getattr(options, key) for key in ("insightface", "gluonfr", "packages")},
    }
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    return file


def run_worker(worker: str, settings: Path) -> list[dict[str, Any]]:
    """Run the script of one project once, in a new process; return the result of each set."""
    done = subprocess.run(
        [sys.executable, "-P", FOLDER / WORKERS[worker], settings],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def print_results(names: Sequence[str], found: Results) -> int:
    """Print accuracies and times; return the exit code of the program."""
    failed = 0
    seconds = {worker: [sum(r["seconds"] for r in results) for results in rounds]
               for worker, rounds in found.items()}  # fmt: skip
    for number, name in enumerate(names):
        ours, insightface, gluonfr = (found[worker][0][number] for worker in WORKERS)
        for what, other, key in (("insightface", insightface, "flip"), ("gluonfr", gluonfr, "no flip")):  # noqa: E501  # fmt: skip
            difference = abs(ours[key] - other[key])
            failed += difference > TOLERANCE
            print(f"{name}: accuracy, {key}: ours {ours[key]:.6f}  {what} {other[key]:.6f}  "
                  f"difference {difference:.1e}")  # fmt: skip
        published, alone = gluonfr["flip as published"], gluonfr["flip after a reset"]
        print(f"{name}: gluonfr with mirror images: {published:.6f} as published, {alone:.6f} if "
              "the metric is reset before the set")  # fmt: skip
    median = {worker: statistics.median(times) for worker, times in seconds.items()}
    for worker, times in seconds.items():
        ratio = median[worker] / median["ours"]
        failed += worker != "ours" and ratio < MIN_SPEEDUP
        print(f"{worker}: median {median[worker]:.2f} s for all sets (from {min(times):.2f} to "
              f"{max(times):.2f} s), {ratio:.2f} times ours")  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

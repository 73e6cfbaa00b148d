# SPDX-License-Identifier: Apache-2.0
"""Compare the accuracy of training with sampled class centres and with all class centres.

python tools/sampling_accuracy.py demo.yaml --rate 0.5 --out FOLDER
FACES_DIR=FACES python tools/sampling_accuracy.py faces.yaml --rate 0.3 --out FOLDER

For each seed, the tool trains a configuration with ``head.sharded=true`` twice: with
``head.sample_rate=1``, and with the sampling rate of ``--rate``.  The sampling rate is the fraction
of the class centres that take part in a step.  Runs with the same seed differ only in this rate.
The tool prints the verification accuracies and their means.  The exit status is 1 if the mean
accuracy at the rate of ``--rate`` is lower than the mean accuracy at the rate 1 by more than the
tolerance.

After an interruption, run the same command again: it does not repeat finished runs in FOLDER or in
the file of ``--json``, and it resumes an unfinished run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from atomic_write import atomic_write
from launch.config.paths import home_path
from launch.environment.provenance import commit, cpu_model

ROOT = Path(__file__).resolve().parents[1]
FULL_RATE = 1.0


def main() -> int:
    """Run the tool with the arguments of the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cfg", help="configuration, as for the option --cfg of run_train.py")
    parser.add_argument(
        "--rate",
        type=float,
        default=0.5,
        help="fraction of the class centres that take part in a step (default: 0.5)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="random seeds (default: 1 2 3)"
    )
    parser.add_argument("--ranks", type=int, default=2, help="number of ranks (default: 2)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.015,
        help="largest permitted decrease of the mean accuracy (default: 0.015)",
    )
    parser.add_argument("--out", type=home_path, required=True, help="folder for the runs")
    parser.add_argument(
        "--json", type=home_path, help="JSON file to which each finished run adds a row"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="more settings of all runs, such as train.epochs=2",
    )
    arguments = parser.parse_args()
    if not 0 < arguments.rate < 1:
        parser.error(f"--rate: must be above 0 and below 1, got {arguments.rate:g}; 0.5 is usual")
    rows = read_rows(arguments.json)
    rates = (FULL_RATE, arguments.rate)
    found: dict[float, list[float]] = {rate: [] for rate in rates}
    for seed in arguments.seeds:
        for rate in rates:
            accuracy = known_accuracy(rows, arguments, rate, seed)
            if accuracy is None:
                accuracy = train(arguments, rate, seed)
                rows.append(row_of(arguments, rate, seed, accuracy))
                write_rows(arguments.json, rows)
            found[rate].append(accuracy)
            print(f"rate {rate:g}, seed {seed}: accuracy {accuracy:.4f}", flush=True)
    means = [statistics.fmean(found[rate]) for rate in rates]
    difference = means[1] - means[0]
    print(
        f"{arguments.cfg}: mean accuracy {means[0]:.4f} at the rate 1 and {means[1]:.4f} at the "
        f"rate {arguments.rate:g}, difference {difference:+.4f}, {len(arguments.seeds)} seeds"
    )
    return 1 if difference < -arguments.tolerance else 0


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Return the rows of a file that this tool wrote; return an empty list if there is no file."""
    return json.loads(path.read_text())["rows"] if path and path.exists() else []


def write_rows(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write the rows of all finished runs to a file, atomically; do nothing without a path."""
    if path:
        with atomic_write(path, "w") as file:
            lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
            file.write(f'{{\n "rows": [\n{lines}\n ]\n}}\n')


def row_of(arguments: argparse.Namespace, rate: float, seed: int, accuracy: float) -> dict:
    """Return the row of a finished run for the file of ``--json``."""
    return {
        **_conditions(arguments, rate, seed),
        "accuracy": accuracy,
        "commit": commit(),
        "cpu": cpu_model(),
    }


def known_accuracy(
    rows: list[dict[str, Any]], arguments: argparse.Namespace, rate: float, seed: int
) -> float | None:
    """Return the accuracy in the row of a run with equal conditions; None if there is none."""
    wanted = _conditions(arguments, rate, seed)
    return next((row["accuracy"] for row in rows if wanted.items() <= row.items()), None)


def _conditions(arguments: argparse.Namespace, rate: float, seed: int) -> dict[str, Any]:
    """Return the values on which the accuracy of a run depends, as a part of its row."""
    return {
        "cfg": Path(arguments.cfg).name,
        "rate": rate,
        "seed": seed,
        "ranks": arguments.ranks,
        "settings": list(arguments.set),
    }


def train(arguments: argparse.Namespace, rate: float, seed: int) -> float:
    """Return the verification accuracy of a run; train first if the run has not finished yet."""
    stem = Path(arguments.cfg).stem
    name = f"{stem}-rate{rate}-seed{seed}"
    if (accuracy := finished(arguments.out, name)) is not None:
        return accuracy
    command = [sys.executable, "-m", "launch.local", "-np", str(arguments.ranks)]
    command += ["--cfg", arguments.cfg, f"run.dir={arguments.out}", f"run.name={name}"]
    command += [f"run.seed={seed}", "head.sharded=true", f"head.sample_rate={rate}"]
    command += arguments.set
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / f"{name}.log"
    with log.open("a") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    accuracy = finished(arguments.out, name)
    if done.returncode or accuracy is None:
        last = log.read_text().splitlines()[-1:]
        raise SystemExit(
            f"sampling_accuracy: {name}: the training must finish and verify, got exit code "
            f"{done.returncode}, last line of its log: {''.join(last)}; see {log}"
        )
    return accuracy


def finished(out: Path, name: str) -> float | None:
    """Return the mean accuracy of a finished run over its verification sets, or else None.

    None means that no run with this name in the folder has finished and verified.
    """
    for path in sorted(out.glob(f"{name}-*/summary.json")):
        summary = json.loads(path.read_text())
        if summary["status"] == "finished" and summary.get("verification"):
            return statistics.fmean(v["accuracy"] for v in summary["verification"].values())
    return None


if __name__ == "__main__":
    sys.exit(main())

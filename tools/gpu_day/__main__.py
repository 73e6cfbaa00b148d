# SPDX-License-Identifier: Apache-2.0
"""Run all measurements that need GPUs, or rehearse them on the CPU.

python -m tools.gpu_day [--rehearse] [--only 3 5] [--records FOLDER] [--out FOLDER]

The measurements are divided into numbered steps.  The program writes one result line per step to
OUT/gpu_day.jsonl and the logs to OUT/gpu_day/.  At the end, the program prints the last table of
docs/gpu.md with the results.
Exit codes: 0 if no step failed; 1 if a step failed; 2 if a prerequisite is missing; 128 + N after
signal N.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.config.paths import home_path
from tools.gpu_day.day import LINES, LOGS, Day
from tools.gpu_day.prerequisites import (
    MissingPrerequisite,
    count_gpus,
    require_environment,
    require_gpu_environment,
    require_records,
    require_writable,
)
from tools.gpu_day.report import REPORT
from tools.gpu_day.setting import ROOT, Setting
from tools.gpu_day.steps import STEPS, choose


def main(argv: Sequence[str]) -> int:
    """Check the prerequisites, run the measurements, and return the exit code."""
    options = build_parser().parse_args(argv)
    try:
        python, gpus = check(options)
    except MissingPrerequisite as error:
        print(f"gpu_day: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # The user pressed Ctrl-C during the check of the prerequisites.
        print("gpu_day: stopped before the first step", file=sys.stderr)
        return 128 + signal.SIGINT
    if not options.only:
        rename_old_results(options.out / LINES)
    devices = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "rehearsal on the CPU"
    print(f"gpu_day: {devices}, {python}, results in {options.out}", flush=True)
    records = options.records.resolve()
    setting = Setting(gpus, records, options.out.resolve(), options.image)
    day = Day(python, options.out.resolve(), setting, options.patience)
    lines = day.run(choose(STEPS, options.only))
    report = options.out / LOGS / REPORT
    if any(line["step"] == STEPS[-1].number and line["state"] == "measured" for line in lines):
        print(report.read_text(encoding="utf-8"))
    if day.stopped_by:
        print(f"gpu_day: stopped; results so far are in {options.out / LINES}", file=sys.stderr)
        return 128 + day.stopped_by
    return int(any(line["state"] == "failed" for line in lines))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_day", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--venv",
        type=home_path,
        help="Python environment to measure (default: .venv-gpu if it exists and finds a GPU, else "
        ".venv; with --rehearse: .venv)",
    )
    parser.add_argument(
        "--records",
        type=home_path,
        default=ROOT / "data" / "sample_faces",
        help="folder with the record set and the verification set to use (default: "
        "data/sample_faces)",
    )
    parser.add_argument(
        "--out",
        type=home_path,
        default=ROOT / "results",
        help="folder for the results (default: results)",
    )
    parser.add_argument(
        "--image", default="faces-gpu", help="Docker image for GPUs (default: faces-gpu)"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run only what works on the CPU, even if there are GPUs",
    )
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        default=[],
        choices=[step.number for step in STEPS],
        metavar="N",
        help="run only the steps with these numbers, and append their results to the results file",
    )
    parser.add_argument(
        "--patience", type=float, default=1.0, help="factor for all time limits (default: 1)"
    )
    return parser


def check(options: argparse.Namespace) -> tuple[str, int]:
    """Check the prerequisites; return the path of the Python interpreter and the number of GPUs.

    Raises
    ------
    MissingPrerequisite
        If a prerequisite is missing.
    """
    venv = options.venv or Path(".venv")
    if options.venv is None and not options.rehearse:
        gpu = ROOT / ".venv-gpu"
        if (gpu / "bin" / "python").is_file() and count_gpus(str(gpu / "bin" / "python")):
            venv = gpu
    venv = ROOT / venv  # If `venv` is absolute, the result is `venv`.
    python = require_environment(venv)
    gpus = 0 if options.rehearse else count_gpus(python)
    require_gpu_environment(venv, gpus)
    require_records(options.records)
    require_writable(options.out)
    return python, gpus


def rename_old_results(lines: Path) -> None:
    """Rename an existing results file, so that the new results start a new file."""
    if lines.is_file():
        number = 1
        while (other := lines.with_name(f"{lines.stem}-{number}{lines.suffix}")).exists():
            number += 1
        lines.rename(other)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

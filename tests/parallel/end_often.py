# SPDX-License-Identifier: Apache-2.0
"""End launchers in many ways: no process may remain, and the run must resume.

    python tests/parallel/end_often.py

The command writes records to a temporary folder and trains one run on two ranks.  It ends each
launcher (launch.local, launch.hosts on this host and over a stand-in for ssh, horovodrun) by
SIGHUP, SIGKILL, SIGTERM, a closed pipe and a closed terminal, and then resumes the run.  Two
launchers end while a checkpoint is written.  The command prints the seconds until all processes
have ended.  The exit code is 1 if that takes more than 5 seconds (10 after SIGTERM, which includes
5 seconds of grace), if a step is missing or duplicate, or if the run does not resume.

    python tests/parallel/end_often.py --twice 20

With --twice the command launches one run twice at the same time, 20 times.  One launch must train
and the other must be refused.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

from pipeline.records.writer import write_record_set
from tests.conftest import faces
from tests.parallel.ends import ENDS, LAUNCHERS, LauncherProcess, output_of, over_ssh
from tests.parallel.kills import has_partial_checkpoint
from tests.parallel.ranks import read_losses, write_cfg
from training.checkpoint_folders import find_newest, step_folders

MAX_S = {"SIGTERM": 10.0}
DEFAULT_MAX_S = 5.0
PEOPLE, IMAGES = 12, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--twice", type=int, default=0, help="number of double launches (0)")
    parser.add_argument("--launchers", help="launchers to test, separated by commas (all)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_record_set(folder / "records", faces(PEOPLE, IMAGES), PEOPLE)
        train = {"max_steps": 100_000, "checkpoint_every": 4}
        cfg = write_cfg(folder, folder / "records", train=train)
        if arguments.twice:
            return launch_twice(cfg, folder, arguments.twice)
        return end_often(cfg, folder, arguments.launchers)


def end_often(cfg: Path, folder: Path, names: str | None) -> int:
    run = folder / "runs" / "tiny-001"
    environment, remote = over_ssh(folder)
    launchers = {**LAUNCHERS, "launch.hosts over ssh": remote}
    chosen = names.split(",") if names else list(launchers)
    cases = [(name, how, False) for name, how in itertools.product(chosen, ENDS)]
    cases += [(chosen[0], "SIGKILL", True), (chosen[-1], "closed pipe", True)]
    bad = 0
    print("launcher               end              saving  at step  resumed from  gone after s")
    for name, how, saving in cases:
        before = max(read_losses(run), default=0)
        newest = find_newest(run / "checkpoints").folder
        expected = int(newest.name.removeprefix("step-")) if newest else 0
        command = [*launchers[name], "--cfg", str(cfg)]
        with LauncherProcess(command, output_of(how), environment) as launched:
            enough = before + 6
            launched.until(partial(reached, run, enough), "six steps")
            if saving:
                launched.until(lambda: has_partial_checkpoint(run), "a checkpoint being written")
            launched.end(how)
            seconds = launched.until_gone()
        losses = read_losses(run)
        log = (run / "train.log").read_text()
        resumed = [int(m) for m in re.findall(r"^resumed at step (\d+)", log, re.MULTILINE)]
        fine = (
            seconds <= MAX_S.get(how, DEFAULT_MAX_S)
            and sorted(losses) == list(range(1, max(losses) + 1))
            and (resumed[-1] if expected else 0) == expected
        )
        bad += not fine
        print(
            f"{name:22s} {how:16s} {'yes' if saving else 'no':6s}  {max(losses):7d}  "
            f"{expected:12d}  {seconds:12.2f}{'' if fine else '  FAILED'}",
            flush=True,
        )
    print(f"{len(cases) - bad} of {len(cases)} ends left no process and resumed")
    return 1 if bad else 0


def reached(run: Path, step: int) -> bool:
    return max(read_losses(run), default=0) >= step


def launch_twice(cfg: Path, folder: Path, times: int) -> int:
    run = folder / "runs" / "tiny-001"
    command = [*LAUNCHERS["launch.local"], "--cfg", str(cfg)]
    good = 0
    for number in range(1, times + 1):
        before = max(read_losses(run), default=0)
        with LauncherProcess(command) as one, LauncherProcess(command) as two:
            one.until(
                lambda one=one, two=two: one.process.poll() is not None
                or two.process.poll() is not None,
                "one launch is refused",
            )
            refused, trains = (one, two) if one.process.poll() is not None else (two, one)
            trains.until(partial(reached, run, before + 6), "six steps")
            trains.end("SIGTERM")
            trains.until_gone()
            refused.until_gone()
            messages = [x for x in refused.output().splitlines() if x.startswith("run_train: ")]
            code, output = refused.process.returncode, trains.output()
        losses = read_losses(run)
        newest = find_newest(run / "checkpoints")
        fine = (
            code == 2
            and len(messages) == 1
            and "another process trains in this run folder, got process" in messages[0]
            and "Traceback" not in output
            and [path.name for path in run.parent.iterdir()] == ["tiny-001"]
            and sorted(losses) == list(range(1, max(losses) + 1))
            and newest.folder == step_folders(run / "checkpoints")[-1]
        )
        good += fine
        print(
            f"{number:3d}  code {code}  steps {max(losses)}{'' if fine else '  FAILED'}", flush=True
        )
    print(f"{good} of {times}: one launch trained, the other was refused, the run folder is valid")
    return 0 if good == times else 1


if __name__ == "__main__":
    sys.exit(main())

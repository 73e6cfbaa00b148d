# SPDX-License-Identifier: Apache-2.0
"""End launchers in every way, again and again: no process may stay, and the run must resume.

    python tests/parallel/end_often.py

Makes its own records in a temporary folder.  One run of two ranks is resumed after every end: each
launcher (launch.local, launch.hosts here and over a stand-in for ssh, horovodrun) ends by SIGHUP,
SIGKILL, SIGTERM, a closed pipe and a closed terminal, two of them while a checkpoint is written.
Prints the seconds until nothing was left.  Exit code 1 if that took more than 5 seconds (10 after
SIGTERM: 5 of grace), if a step is missing or doubled, or if the run did not resume.

    python tests/parallel/end_often.py --twice 20

Instead launches one run twice at the same moment: one must train, the other must be refused.
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
from tests.parallel.ends import ENDS, LAUNCHERS, Launched, output_of, over_ssh
from tests.parallel.kills import half_written
from tests.parallel.ranks import read_losses, write_cfg
from training.checkpoint_folders import find_newest, step_folders

LIMIT_S = {"SIGTERM": 10.0}
LIMIT_OF_OTHERS_S = 5.0
PEOPLE, IMAGES = 12, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--twice", type=int, default=0, help="launch twice, so many times")
    parser.add_argument("--launchers", help="names, comma separated (all)")
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
        with Launched(command, output_of(how), environment) as launched:
            enough = before + 6
            launched.until(partial(reached, run, enough), "six steps")
            if saving:
                launched.until(lambda: half_written(run), "a checkpoint being written")
            launched.end(how)
            seconds = launched.until_gone()
        losses = read_losses(run)
        log = (run / "train.log").read_text()
        resumed = [int(m) for m in re.findall(r"^resumed at step (\d+)", log, re.MULTILINE)]
        fine = (
            seconds <= LIMIT_S.get(how, LIMIT_OF_OTHERS_S)
            and sorted(losses) == list(range(1, max(losses) + 1))
            and (resumed[-1] if expected else 0) == expected
        )
        bad += not fine
        print(
            f"{name:22s} {how:16s} {'yes' if saving else 'no':6s}  {max(losses):7d}  "
            f"{expected:12d}  {seconds:12.2f}{'' if fine else '  FAILED'}",
            flush=True,
        )
    print(f"{len(cases) - bad} of {len(cases)} ends left nothing behind and resumed")
    return 1 if bad else 0


def reached(run: Path, step: int) -> bool:
    return max(read_losses(run), default=0) >= step


def launch_twice(cfg: Path, folder: Path, times: int) -> int:
    run = folder / "runs" / "tiny-001"
    command = [*LAUNCHERS["launch.local"], "--cfg", str(cfg)]
    good = 0
    for number in range(1, times + 1):
        before = max(read_losses(run), default=0)
        with Launched(command) as one, Launched(command) as two:
            one.until(
                lambda one=one, two=two: one.process.poll() is not None
                or two.process.poll() is not None,
                "one of them refused",
            )
            refused, trains = (one, two) if one.process.poll() is not None else (two, one)
            trains.until(partial(reached, run, before + 6), "six steps")
            trains.end("SIGTERM")
            trains.until_gone()
            refused.until_gone()
            sentences = [x for x in refused.said().splitlines() if x.startswith("run_train: ")]
            code, said = refused.process.returncode, trains.said()
        losses = read_losses(run)
        whole = find_newest(run / "checkpoints")
        fine = (
            code == 2
            and len(sentences) == 1
            and "another process trains in this run folder, got process" in sentences[0]
            and "Traceback" not in said
            and [path.name for path in run.parent.iterdir()] == ["tiny-001"]
            and sorted(losses) == list(range(1, max(losses) + 1))
            and whole.folder == step_folders(run / "checkpoints")[-1]
        )
        good += fine
        print(
            f"{number:3d}  code {code}  steps {max(losses)}{'' if fine else '  FAILED'}", flush=True
        )
    print(f"{good} of {times}: one trained, one was refused, the folder is whole")
    return 0 if good == times else 1


if __name__ == "__main__":
    sys.exit(main())

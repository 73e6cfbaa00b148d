# SPDX-License-Identifier: Apache-2.0
"""Ends of launchers: no process remains and the run resumes; second launches are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys

import pytest

from pipeline.records.writer import write_record_set
from tests.parallel.ends import LAUNCHERS, LauncherProcess, output_of, over_ssh
from tests.parallel.ranks import HOROVODRUN, Ranks, read_losses, run, training, write_cfg

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize(
    ("launcher", "how"), [("launch.local", "closed pipe"), ("launch.hosts over ssh", "SIGKILL")]
)
def test_no_process_outlives_its_launcher_and_the_run_resumes(
    launcher, how, tiny_records, tmp_path
):
    # tests/parallel/end_often.py tests every launcher with every end.
    steps = {"max_steps": 100_000, "checkpoint_every": 2}
    cfg = write_cfg(tmp_path, tiny_records, train=steps)
    folder = tmp_path / "runs" / "tiny-001"
    environment, remote = over_ssh(tmp_path)
    command = [*{**LAUNCHERS, "launch.hosts over ssh": remote}[launcher], "--cfg", str(cfg)]
    with LauncherProcess(command, output_of(how), environment) as launched:
        launched.until(lambda: max(read_losses(folder), default=0) >= 4, "four steps")
        launched.end(how)
        launched.until_gone()
    # Either the companion or the launcher stops the ranks, whichever notices the end first.
    assert re.search("asked to stop: |stopped at step", (folder / "train.log").read_text())
    last = max(read_losses(folder))
    with Ranks(1, training(cfg)) as again:
        again.until(lambda: max(read_losses(folder), default=0) > last)
        again.kill_all()
    assert sorted(read_losses(folder)) == list(range(1, max(read_losses(folder)) + 1))
    log = (folder / "train.log").read_text().splitlines()
    assert sum(line.startswith("run ") for line in log) == 2  # the log has both launches


RANK = """
import os, sys, time
from launch.ranks.output import attach_companion
attach_companion()
while True:
    print("rank", os.environ["HOROVOD_RANK"], "\\u9854", flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def horovodrun_of_a_small_program(tmp_path):
    """Return the command of two ranks that only print lines."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    return [HOROVODRUN, "-np", "2", sys.executable, str(script)]


def test_ranks_end_if_the_output_pipe_of_horovodrun_closes(horovodrun_of_a_small_program):
    with LauncherProcess(horovodrun_of_a_small_program, "pipe") as launched:
        assert os.read(launched.reader, 1)
        launched.end("closed pipe")
        launched.until_gone()


def test_a_character_outside_the_locale_does_not_block_the_ranks(horovodrun_of_a_small_program):
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}
    with LauncherProcess(horovodrun_of_a_small_program, "file", latin) as launched:
        for rank in "01":
            line = f"[{rank}]<stdout>:rank {rank} \\u9854\n"
            launched.until(lambda line=line: launched.output().count(line) > 200, line)
        launched.end("SIGTERM")
        launched.until_gone()


def test_a_path_with_characters_outside_the_locale_works(tiny_records, tmp_path):
    folder = tmp_path / "顔"
    cfg = write_cfg(folder, tiny_records, train={"max_steps": 2})
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}
    command = [*LAUNCHERS["launch.local"], "--cfg", str(cfg)]
    with LauncherProcess(command, "file", latin) as launched:
        launched.until_gone()
        assert launched.process.returncode == 0, launched.output()
        assert launched.output().startswith(f"run {folder / 'runs' / 'tiny-001'}  ranks 2")
    log = (folder / "runs" / "tiny-001" / "train.log").read_text(encoding="utf-8")
    assert log.startswith(f"run {folder / 'runs' / 'tiny-001'}  ranks 2")
    assert "step 2/2" in log


def test_a_second_launch_changed_data_and_damaged_checkpoints_are_refused(
    tiny_records, make_face, tmp_path
):
    records = shutil.copytree(tiny_records, tmp_path / "set")
    cfg = write_cfg(tmp_path, records, train={"max_steps": 100_000, "checkpoint_every": 2})
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(1, training(cfg)) as first:
        first.until(lambda: max(read_losses(folder), default=0) >= 2)
        assert refusal(cfg).startswith(
            f"run_train: {folder}: another process trains in this run folder, got process "
            f"{first.pids()[0]} on host "
        )
        os.kill(first.pids()[0], signal.SIGTERM)
        ended = first.wait()
    assert ended.code == 143, ended.everything
    assert [path.name for path in folder.parent.iterdir()] == ["tiny-001"]
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"

    write_record_set(records, [(p, make_face(p, 0)) for p in range(13)], 13)
    assert refusal(cfg) == (
        f"run_train: {folder}: the unfinished run was trained on different data, got the changes "
        "(images: 120 -> 13; people: 12 -> 13); restore the data, or start a new run with "
        "run.resume=false "
        f"(train.pretrained={folder} keeps the weights)"
    )
    for state in folder.glob("checkpoints/*/state.json"):
        state.write_bytes(state.read_bytes()[:-1])
    assert refusal(cfg).startswith(
        f"run_train: {folder / 'checkpoints'}: no checkpoint is valid, got "
    )


def refusal(cfg):
    """Start a run that must be refused; return its message."""
    ended = run(1, training(cfg))
    assert ended.code == 2, ended.everything
    assert ended.stdout == "" and ended.stderr.count("\n") == 0, ended.everything
    return ended.stderr

# SPDX-License-Identifier: Apache-2.0
"""GPU day: a faulty step does not stop the next one, and no process outlives the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.marked_processes import alive
from tools.gpu_day.day import describe, summarize
from tools.gpu_day.results import Part
from tools.gpu_day.supervisor import MAX_LOG_BYTES, Outcome

PROGRAM = Path(__file__).with_name("injected.py")
MARK = "TEST_GPU_DAY_MARK"
TIMEOUT_S = 120


class Command:
    """Process of injected.py; a variable in the environment marks its descendants."""

    def __init__(self, out: Path, *names: str):
        self._mark = uuid.uuid4().hex
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(out), *names],
            env={**os.environ, MARK: self._mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def alive(self) -> list[int]:
        return alive(MARK, self._mark)

    def until(self, met: Callable[[], object]) -> None:
        give_up = time.monotonic() + TIMEOUT_S
        while not met():
            assert time.monotonic() < give_up, "the condition was never met"
            time.sleep(0.01)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.out / "gpu_day.jsonl").read_text().splitlines()]


def test_no_step_stops_the_next(tmp_path):
    names = ["fails", "hangs", "prints garbage", "writes garbage", "fails late", "crashes"]
    with Command(tmp_path, *names, "is done") as command:
        shown, _ = command.process.communicate(timeout=TIMEOUT_S)
        assert command.process.returncode == 0, shown
        assert not command.alive()
        lines = command.lines()
    assert [line["what"].split(" ", 1)[1] for line in lines] == [*names, "is done", "is no program"]
    state = {line["what"].split(" ", 1)[1]: (line["state"], line["value"]) for line in lines}
    assert state["fails"] == ("failed", "the step ended with exit code 3")
    assert state["hangs"] == ("failed", "the step exceeded its time limit of 1 s and was ended")
    assert state["prints garbage"] == ("failed", "the step ended without a result")
    assert state["writes garbage"][0] == "failed"
    found = "results: line 2 of the file is not a result, got '"
    assert state["writes garbage"][1].startswith(found)
    assert state["fails late"] == ("failed", "the step ended with exit code 5")
    assert state["crashes"] == ("failed", f"the step ended with exit code {128 + signal.SIGABRT}")
    assert state["is done"] == ("measured", {"number": 7})
    assert state["is no program"][0] == "failed"
    assert "/no/such/program cannot be started" in state["is no program"][1]
    # Parts measured before a fault count.
    assert lines[3]["measured"] == lines[4]["measured"] == {"number": 7}
    assert "bad luck" in (tmp_path / "gpu_day" / "0-fails.log").read_text()
    assert (tmp_path / "gpu_day" / "2-prints-garbage.log").read_bytes() == bytes(range(256)) * 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(number, tmp_path):
    with Command(tmp_path, "waits", "is done") as command:
        command.until((tmp_path / "started").exists)
        command.process.send_signal(number)
        command.process.wait(TIMEOUT_S)
        if number == signal.SIGKILL:  # its supervisor notices
            command.until(lambda: not command.alive())
            return
        assert not command.alive()
        assert command.process.returncode == number
        ended, skipped, _ = command.lines()
    assert (ended["state"], ended["value"]) == ("failed", "the step was ended by SIGTERM")
    name = signal.Signals(number).name
    assert (skipped["state"], skipped["value"]) == (
        "skipped",
        f"skipped: {name} stopped the measurements",
    )


def test_processes_that_outlive_a_step_are_ended_and_counted(tmp_path):
    with Command(tmp_path, "leaves") as command:
        command.process.communicate(timeout=TIMEOUT_S)
        assert not command.alive()
        (line,) = command.lines()
    assert line["remaining"] == 1


def test_the_next_step_runs_after_a_supervisor_is_killed(tmp_path):
    with Command(tmp_path, "waits", "is done") as command:
        command.until((tmp_path / "started").exists)
        children = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        command.process.communicate(timeout=TIMEOUT_S)
        assert not command.alive()
        ended, done, _ = command.lines()
    assert ended["value"] == "the step was ended by the end of its supervisor (exit code -9)"
    assert done["state"] == "measured"


MEASURED, FAILED, SKIPPED = (
    Part("one", "measured", 1.5),
    Part("two", "failed", "is wrong"),
    Part("three", "skipped", "no GPU"),
)


@pytest.mark.parametrize(
    ("outcome", "parts", "gpus", "state", "value"),
    [
        (Outcome(0), [MEASURED], 1, "measured", {"one": 1.5}),
        (Outcome(1), [MEASURED, FAILED], 1, "failed", "two: is wrong"),
        (Outcome(0), [SKIPPED], 1, "skipped", "skipped: no GPU"),
        (Outcome(0), [SKIPPED, MEASURED], 1, "measured", {"one": 1.5}),
        (Outcome(0), [SKIPPED, MEASURED], 0, "skipped", "skipped: no GPU"),
        (Outcome(0), [MEASURED, SKIPPED], 0, "measured", {"one": 1.5}),
        (Outcome(139), [MEASURED], 1, "failed", "the step ended with exit code 139"),
        (
            Outcome(None, "limit"),
            [],
            1,
            "failed",
            "the step exceeded its time limit of 9 s and was ended",
        ),
        (Outcome(0), [], 1, "failed", "the step ended without a result"),
        (
            Outcome(None, "limit", 0, (5, 6)),
            [MEASURED],
            1,
            "failed",
            "the step exceeded its time limit of 9 s and was ended; SIGKILL did not end the "
            "processes with the ids 5, 6; see dmesg",
        ),
    ],
)
def test_the_state_of_a_step(outcome, parts, gpus, state, value):
    line = summarize(outcome, parts, 9, gpus)
    assert (line["state"], line["value"]) == (state, value)
    assert json.loads(json.dumps(line)) == line


def test_the_terminal_shows_the_values_of_a_line():
    line = {"state": "measured", "seconds": 2.0, "value": {"a": {"x": 0.123456, "y": [1, 2]}}}
    assert describe(line) == "measured (2 s)  a: x 0.1235, y 1, 2"


def test_a_log_has_a_maximum_size(tmp_path):
    flood = f"import sys; sys.stdout.write('x' * {MAX_LOG_BYTES + 5000})"
    command = [sys.executable, "-m", "tools.gpu_day.supervisor", "60", str(tmp_path / "log")]
    done = subprocess.run([*command, sys.executable, "-c", flood], capture_output=True, text=True)
    assert json.loads(done.stdout)["code"] == 0
    text = (tmp_path / "log").read_text()
    assert len(text) < MAX_LOG_BYTES + 100
    assert text.endswith("[output after 16 MiB is discarded]\n")

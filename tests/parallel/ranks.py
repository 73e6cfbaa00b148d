# SPDX-License-Identifier: Apache-2.0
"""Helpers that start real ranks, observe and kill them, and read the files of their runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launch.launchers import local
from launch.ranks.lifeline import list_ancestors

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HOROVODRUN = str(Path(sys.executable).with_name("horovodrun"))
# test_ends.py and test_launchers.py use the installed horovodrun too.
QUICK_HOROVODRUN = (sys.executable, str(local.HOROVODRUN), "--gloo")
TIMEOUT_S = 400.0
"""Maximum duration of a program.  A start takes some seconds on an idle machine."""

START, END = "several: start", "several: end"
"""Lines of several.py around the output of one training."""
LABELS = "--labels="
"""First argument of a training of several.py that records its labels; a folder follows."""
CRASH_AFTER, CRASHED = "--crash-after=", 70
"""Argument of a training of several.py that crashes, before all others but LABELS; its code."""

_PREFIX = re.compile(r"^\[(\d+)\]<(stdout|stderr)>:?")
_MARK = "TEST_RANKS_MARK"  # variable in the environment of every process of one ``Ranks``


@dataclass(frozen=True)
class Line:
    """Line of output; ``rank`` is None for a line of the launcher."""

    rank: int | None
    stream: str
    text: str


@dataclass(frozen=True)
class RunResult:
    """Exit code and output of ranks."""

    code: int
    lines: list[Line]

    @property
    def stdout(self) -> str:
        """Standard output of the ranks, without prefixes."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """Standard error of the ranks, without prefixes."""
        return self._text("stderr")

    @property
    def rank_output(self) -> str:
        """Standard output and standard error of all ranks, without lines of the launcher."""
        return "\n".join(line.text for line in self.lines if line.rank is not None)

    @property
    def launcher_output(self) -> str:
        """Lines of the launcher itself."""
        return "\n".join(line.text for line in self.lines if line.rank is None)

    @property
    def has_launcher(self) -> bool:
        """True if a launcher started the ranks; a single rank runs without one."""
        return bool(self.launcher_output)

    @property
    def everything(self) -> str:
        """Exit code and all lines, for the message of an assertion."""
        lines = (f"{line.rank} {line.stream}: {line.text}" for line in self.lines)
        return f"code {self.code}\n" + "\n".join(lines)

    def _text(self, stream: str) -> str:
        lines = (x.text for x in self.lines if x.rank is not None and x.stream == stream)
        return "\n".join(lines)


@dataclass
class Ranks:
    """Context manager that runs a program on ranks and kills all its processes at the end.

    A single rank runs without a launcher, several ranks run under horovodrun.

    Parameters
    ----------
    size
        Number of ranks.
    program
        Python script and its arguments.
    environment
        Variables added to the environment.
    wrapper
        Command that runs the Python interpreter of every rank.
    """

    size: int
    program: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()

    def __enter__(self) -> Ranks:
        self._mark = uuid.uuid4().hex
        python = [*self.wrapper, sys.executable, *map(str, self.program)]
        command = python if self.size == 1 else [*QUICK_HOROVODRUN, "-np", str(self.size), *python]
        # One thread per rank: with more threads than free cores, threads wait for each other.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment, _MARK: self._mark}
        for name in [n for n in environment if n.startswith("HOROVOD_")]:
            del environment[name]
        # Files, not pipes: a full pipe would block the ranks.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        self._out.close()
        self._err.close()

    @property
    def has_ended(self) -> bool:
        """True after the program or its launcher has ended."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float = TIMEOUT_S) -> RunResult:
        """Wait for the end and return the result; raise AssertionError after the timeout."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            output = self.output().everything
            self.kill_all()
            raise AssertionError(f"the ranks did not end after {timeout_s:g} s\n{output}") from None
        return RunResult(code, self.output().lines)

    def output(self) -> RunResult:
        """Return the output so far; the exit code is -1 while the ranks run."""
        lines = []
        for stream, file in (("stdout", self._out), ("stderr", self._err)):
            # pread does not move the file offset, which the writing processes share.
            content = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            for text in content.decode(errors="replace").splitlines():
                if self.size == 1:
                    lines.append(Line(0, stream, text))
                elif match := _PREFIX.match(text):
                    lines.append(Line(int(match[1]), match[2], text[match.end() :]))
                else:
                    lines.append(Line(None, stream, text))
        code = self._process.poll()
        return RunResult(-1 if code is None else code, lines)

    def until(
        self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S, poll_s: float = 0.01
    ) -> Any:
        """Check ``condition`` every ``poll_s`` seconds until it is true; return its value.

        Raises
        ------
        AssertionError
            If the ranks end first, or after the timeout.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            # Read the state before the condition: the ranks may meet the condition and then end.
            over = self.has_ended or time.monotonic() > deadline
            if value := condition():
                return value
            if over:
                raise AssertionError(
                    f"the ranks did not meet the condition\n{self.output().everything}"
                )
            time.sleep(poll_s)

    def pids(self) -> dict[int, int]:
        """Return the process id of every running rank, by rank."""
        if self.size == 1:
            return {} if self.has_ended else {0: self._process.pid}
        return self.pids_of(self.program[0])

    def pids_of(self, script: str | Path) -> dict[int, int]:
        """Return by rank the process id of every running Python script of a launched rank.

        Forked children of a script are not listed, although they have its command line.
        """
        found = {}
        for pid, environment in self._processes():
            if "HOROVOD_RANK" in environment and _runs(pid, script):
                parent = list_ancestors(pid)[:1]
                if not any(_runs(each, script) for each in parent):
                    found[int(environment["HOROVOD_RANK"])] = pid
        return found

    def unpause(self) -> None:
        """Continue ranks that pause (see pausable.py)."""
        for pid in self.pids().values():
            os.kill(pid, signal.SIGUSR1)

    def kill_all(self) -> None:
        """Send SIGKILL to all processes of the ranks and to the launcher."""
        while pids := [pid for pid, _ in self._processes()]:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.poll()
            time.sleep(0.01)
        self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM to the launcher, or to the single rank."""
        self._process.send_signal(signal.SIGTERM)

    def _processes(self) -> list[tuple[int, dict[str, str]]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            pairs = _read(int(entry.name), "environ").decode(errors="replace").split("\0")
            environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            if environment.get(_MARK) == self._mark:
                found.append((int(entry.name), environment))
        return found


def run(
    size: int, program: Sequence[str | Path], timeout_s: float = TIMEOUT_S, **options: Any
) -> RunResult:
    """Run a program on ``size`` ranks and return its result."""
    with Ranks(size, program, **options) as ranks:
        return ranks.wait(timeout_s)


SEVERAL = (HERE / "several.py",)


def run_several(
    size: int,
    folder: Path,
    argument_lists: Sequence[Sequence[str | Path]],
    program: Sequence[str | Path] = SEVERAL,
) -> list[RunResult]:
    """Train once with each of the argument lists of run_train.py, all in the same ranks.

    The ranks must return the same exit code.  ``folder`` receives the file of the arguments, which
    is the last argument of ``program``.
    """
    file = folder / "several.json"
    file.write_text(json.dumps([[*map(str, arguments)] for arguments in argument_lists]))
    ended = run(size, [*program, file])
    assert ended.code == 0, ended.everything
    parts: list[list[Line]] = [[] for _ in argument_lists]
    position: dict[tuple[int | None, str], int] = {}
    codes: list[set[int]] = [set() for _ in argument_lists]
    for line in ended.lines:
        source = (line.rank, line.stream)
        if line.text == START:
            position[source] = position.get(source, -1) + 1
        elif line.text.startswith(END):
            codes[position[source]].add(int(line.text.removeprefix(END)))
        elif line.rank is not None:
            parts[position[source]].append(line)
    assert all(len(found) == 1 for found in codes), ended.everything
    return [RunResult(found.pop(), part) for found, part in zip(codes, parts, strict=True)]


def training(cfg: Path, *overrides: str) -> list[str | Path]:
    """Return the training program: run_train.py with arguments."""
    return [ROOT / "run_train.py", "--cfg", cfg, *overrides]


def pausable(cfg: Path, *overrides: str) -> list[str | Path]:
    """Return the training program that pauses where ``pause_at`` says."""
    return [HERE / "pausable.py", "--cfg", cfg, *overrides]


def pause_at(where: int | str) -> dict[str, str]:
    """Return the environment that makes ``pausable`` pause after a step or before "verify"."""
    return {"TEST_PAUSE_AT": str(where)}


AUGMENTED = {
    "color_jitter": 0.125,
    "jpeg_quality": [2, 20],
    "cut_out": 40,
    "images_filter": 2,
}
"""Data section with several augmentations and a filter of people."""


def write_cfg(
    folder: Path, records: Path | str | Sequence[Path], **sections: Mapping[str, Any]
) -> Path:
    """Write ``folder``/tiny.yaml and return its path.

    The configuration trains a small net, logs every loss and writes runs to ``folder``/runs.
    ``sections`` updates its sections, as in ``train={"max_steps": 8}``.  A head section with a name
    replaces the default head.
    """
    sets = [records] if isinstance(records, Path | str) else records
    config: dict[str, dict[str, Any]] = {
        "run": {"dir": str(folder / "runs"), "device": "cpu"},
        "data": {"records": [str(path) for path in sets], "batch_size": 4},
        "net": {"name": "mobilefacenet", "width": 0.125, "embedding_size": 16},
        "head": {"name": "arcface", "scale": 16.0, "m2": 0.2},
        "optim": {"lr": 0.02},
        "train": {"max_steps": 6, "log_every": 1, "checkpoint_every": 3},
    }
    for name, values in sections.items():
        defaults = {} if name == "head" and "name" in values else config.get(name, {})
        config[name] = {**defaults, **values}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a run's metrics.jsonl."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_losses(folder: Path) -> dict[int, float]:
    """Return the losses of a run by step; raise AssertionError for a duplicate step."""
    lines = [line for line in read_metrics(folder) if "loss" in line]
    losses = {line["step"]: line["loss"] for line in lines}
    assert len(losses) == len(lines), f"{folder}: duplicate steps in metrics.jsonl"
    return losses


def resumed_at(ended: RunResult) -> int:
    """Return the step at which a run resumed, 0 for a new run."""
    match = re.search(r"^resumed at step (\d+)", ended.stdout, re.MULTILINE)
    return int(match[1]) if match else 0


def _runs(pid: int, script: str | Path) -> bool:
    return str(script).encode() in _read(pid, "cmdline").split(b"\0")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended, or belongs to another user
        return b""

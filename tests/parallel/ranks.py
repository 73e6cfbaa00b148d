# SPDX-License-Identifier: Apache-2.0
"""Start real ranks, look at them while they run, kill them, and read what they left behind."""

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

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HOROVODRUN = str(Path(sys.executable).with_name("horovodrun"))
# --gloo: else it imports MXNet to find out whether there is MPI.
QUICK_HOROVODRUN = (sys.executable, str(HERE / "horovodrun"), "--gloo")
TIMEOUT_S = 400.0
"""After which ranks count as hanging; a start takes some seconds on an idle machine."""

_PREFIX = re.compile(r"^\[(\d+)\]<(stdout|stderr)>:?")
_MARK = "TEST_RANKS_MARK"  # in the environment of all that a test starts: so nothing is forgotten


@dataclass(frozen=True)
class Line:
    """A line of output; ``rank`` is None where the launcher itself speaks."""

    rank: int | None
    stream: str
    text: str


@dataclass(frozen=True)
class Ended:
    """What ended ranks said."""

    code: int
    lines: list[Line]

    @property
    def stdout(self) -> str:
        """What the ranks wrote to their standard output, without prefixes."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """What the ranks wrote to their standard error, without prefixes."""
        return self._text("stderr")

    @property
    def said(self) -> str:
        """Both together, of all ranks, without what the launcher says of itself."""
        return "\n".join(line.text for line in self.lines if line.rank is not None)

    @property
    def launcher(self) -> str:
        """What the launcher says of itself."""
        return "\n".join(line.text for line in self.lines if line.rank is None)

    @property
    def alone(self) -> bool:
        """Whether there was no launcher, but one rank alone."""
        return not self.launcher

    @property
    def everything(self) -> str:
        """For the message of an assertion."""
        said = (f"{line.rank} {line.stream}: {line.text}" for line in self.lines)
        return f"code {self.code}\n" + "\n".join(said)

    def _text(self, stream: str) -> str:
        lines = (x.text for x in self.lines if x.rank is not None and x.stream == stream)
        return "\n".join(lines)


@dataclass
class Ranks:
    """A program on several ranks, started at once and killed with all its children at the end.

    One rank runs as a process of its own, more under horovodrun. ``program`` is a script and its
    arguments; ``wrapper`` is put before the Python interpreter of every rank.
    """

    size: int
    program: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()

    def __enter__(self) -> Ranks:
        self._mark = uuid.uuid4().hex
        python = [*self.wrapper, sys.executable, *map(str, self.program)]
        command = python if self.size == 1 else [*QUICK_HOROVODRUN, "-np", str(self.size), *python]
        # One thread each: threads that outnumber free cores wait for each other at every operator.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment, _MARK: self._mark}
        for name in [n for n in environment if n.startswith("HOROVOD_")]:
            del environment[name]
        # Files, not pipes: a full pipe would stop the ranks.
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
    def ended(self) -> bool:
        """Whether the program or its launcher has ended."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Wait for the end; AssertionError if it does not come."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            said = self.output().everything
            self.kill_all()
            raise AssertionError(f"the ranks hang: no end after {timeout_s:g} s\n{said}") from None
        return Ended(code, self.output().lines)

    def output(self) -> Ended:
        """Return what was said so far; the code is -1 while the ranks run."""
        lines = []
        for stream, file in (("stdout", self._out), ("stderr", self._err)):
            # Not seek and read: the place is shared with the processes that write.
            content = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            for text in content.decode(errors="replace").splitlines():
                if self.size == 1:
                    lines.append(Line(0, stream, text))
                elif match := _PREFIX.match(text):
                    lines.append(Line(int(match[1]), match[2], text[match.end() :]))
                else:
                    lines.append(Line(None, stream, text))
        code = self._process.poll()
        return Ended(-1 if code is None else code, lines)

    def until(self, met: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        """Return what ``met`` returns once it is true; AssertionError if the ranks end before."""
        give_up = time.monotonic() + timeout_s
        while True:
            over = self.ended or time.monotonic() > give_up  # before: they may get there and end
            if found := met():
                return found
            if over:
                raise AssertionError(f"the ranks did not get there\n{self.output().everything}")
            time.sleep(0.002)

    def pids(self) -> dict[int, int]:
        """Return the process of every rank that is alive."""
        if self.size == 1:
            return {} if self.ended else {0: self._process.pid}
        found = {}
        for pid, environment in self._processes():
            script = str(self.program[0]).encode()
            if "HOROVOD_RANK" in environment and script in _read(pid, "cmdline").split(b"\0"):
                found[int(environment["HOROVOD_RANK"])] = pid
        return found

    def go_on(self) -> None:
        """Let ranks that stand still go on."""
        for pid in self.pids().values():
            os.kill(pid, signal.SIGUSR1)

    def kill_all(self) -> None:
        """Send SIGKILL to everything that was started here, the launcher included."""
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
        """Send SIGTERM to the launcher, or to the one rank."""
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
) -> Ended:
    """Run a program on ``size`` ranks to its end."""
    with Ranks(size, program, **options) as ranks:
        return ranks.wait(timeout_s)


def training(cfg: Path, *overrides: str) -> list[str | Path]:
    """Return the program that trains."""
    return [ROOT / "run_train.py", "--cfg", cfg, *overrides]


def held(cfg: Path, *overrides: str) -> list[str | Path]:
    """Return the program that trains and stands still where `hold` says."""
    return [HERE / "held.py", "--cfg", cfg, *overrides]


def hold(where: int | str) -> dict[str, str]:
    """Return the environment in which programs stand still: see held.py."""
    return {"TEST_HOLD": str(where)}


AUGMENTED = {
    "color_jitter": 0.125,
    "jpeg_quality": [2, 20],
    "cut_out": 40,
    "images_filter": 2,
}
"""Everything that is done to images and people at once, for the data section."""


def write_cfg(
    folder: Path, records: Path | str | Sequence[Path], **sections: Mapping[str, Any]
) -> Path:
    """Write folder/tiny.yaml: a small net, every loss logged, runs in folder/runs; return it.

    ``sections`` changes it: ``train={"max_steps": 8}``; a head with a name replaces the other.
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
        kept = {} if name == "head" and "name" in values else config.get(name, {})
        config[name] = {**kept, **values}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's metrics.jsonl so far."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_losses(folder: Path) -> dict[int, float]:
    """Return the loss by step; a step that stands twice is an AssertionError."""
    lines = [line for line in read_metrics(folder) if "loss" in line]
    losses = {line["step"]: line["loss"] for line in lines}
    assert len(losses) == len(lines), f"{folder}: steps stand twice in metrics.jsonl"
    return losses


def resumed_at(ended: Ended) -> int:
    """Return the step that a run says it goes on from, 0 if it began."""
    match = re.search(r"^resumed at step (\d+)", ended.stdout, re.MULTILINE)
    return int(match[1]) if match else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is not ours
        return b""

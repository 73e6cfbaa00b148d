# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of one host:  python -m launch.local -np 2 --cfg NAME.yaml [overrides]

Does what a user would do by hand with horovodrun: shares the cores among the ranks, shows rank 0's
lines without horovodrun's prefixes, draws a progress bar on a terminal, and ends with the run's
own sentence and exit code instead of horovodrun's traceback.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
_PREFIX = re.compile(r"^\[(\d+)\]<(stdout|stderr)>:?")
_CODE = re.compile(r"^Exit code: (-?\d+)")
# What horovodrun says of itself when a rank ends with a code; the rank has said why.
_LAUNCHER = re.compile(
    r"^(Process \d+ exit with status code|Terminating remaining workers|Traceback \(most recent|"
    r"RuntimeError: Horovod detected|Process name: )"
)


def main(argv: Sequence[str]) -> int:
    """Run the ranks to their end; return their exit code."""
    ranks, arguments = _split(list(argv))
    if ranks is None:
        print(
            "launch.local: -np must be a number of ranks above 0; use -np N --cfg FILE",
            file=sys.stderr,
        )
        return 2
    process = subprocess.Popen(
        command(ranks, arguments),
        cwd=ROOT,
        env=environment(ranks),
        stdout=subprocess.PIPE,
        # horovodrun says on its standard output which rank wrote where; a rank alone does not.
        stderr=subprocess.STDOUT if ranks > 1 else None,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,  # Ctrl-C reaches this launcher alone, which passes it on once
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    assert process.stdout is not None
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None
    code = show(process.stdout, ranks, bar)
    if bar:
        bar.close()
    status = process.wait()
    if status < 0:
        return 128 - status
    return code if status and code is not None else status


def command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command line of the ranks."""
    train = [sys.executable, str(ROOT / "run_train.py"), *arguments]
    if ranks == 1:
        return train
    return [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks), *train]


def environment(ranks: int) -> dict[str, str]:
    """Return the environment of the ranks: the cores shared, output at once."""
    cores = len(os.sched_getaffinity(0))
    shared = {"OMP_NUM_THREADS": str(max(1, cores // ranks)), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **{k: os.environ.get(k, v) for k, v in shared.items()}}


def show(output: IO[str], ranks: int, bar: Bar | None) -> int | None:
    """Print what the ranks say; return the exit code that horovodrun reports, None if it is 0."""
    code = None
    for line in _lines(output):
        stream = sys.stdout
        if ranks > 1:
            if prefix := _PREFIX.match(line):
                line = line[prefix.end() :]
                if line == "Terminated":  # the shell of a rank that horovodrun ended after another
                    continue
                if prefix[2] == "stderr":
                    stream = sys.stderr
                elif prefix[1] != "0":
                    continue
            elif match := _CODE.match(line):
                code = int(match[1])
                continue
            elif _LAUNCHER.match(line) or line.startswith("  ") or not line:
                continue
        if bar and stream is sys.stdout:
            bar.line(line)
        else:
            print(line, file=stream, flush=True)
    return code


def _lines(output: IO[str]) -> Iterator[str]:
    for line in output:
        yield line.rstrip("\n")


def _split(argv: list[str]) -> tuple[int | None, list[str]]:
    """Take ``-np N`` out of the arguments; one rank without it."""
    if "-np" not in argv:
        return 1, argv
    place = argv.index("-np")
    try:
        ranks = int(argv[place + 1])
    except (IndexError, ValueError):
        return None, argv
    return (ranks if ranks > 0 else None), argv[:place] + argv[place + 2 :]


class Bar:
    """A progress bar fed from metrics.jsonl of the run that the output names."""

    def __init__(self, stream: TextIO):
        self._bar: tqdm | None = None
        self._stream = stream
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def line(self, text: str) -> None:
        """Print a line above the bar; learn from it where the run is and how long it lasts."""
        step = re.match(r"step (\d+)/(\d+)", text)
        if step and self._bar is not None:
            self._bar.total = int(step[2])
            return  # the bar shows it
        tqdm.write(text, file=self._stream)
        run = re.match(r"run (.+?)  ranks", text)
        if run:
            self._bar = tqdm(file=self._stream, unit="step", dynamic_ncols=True)
            self._thread = threading.Thread(
                target=self._follow, args=(ROOT / run[1] / "metrics.jsonl",), daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Take the bar away."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def _follow(self, path: Path) -> None:
        assert self._bar is not None
        while not self._stop.wait(0.5):
            try:
                last = json.loads(path.read_text().splitlines()[-1])
            except (OSError, ValueError, IndexError):
                continue  # not there yet, or its last line is just being written
            if "loss" not in last:
                continue
            self._bar.n = last["step"]
            self._bar.set_postfix_str(
                f"loss {last['loss']:.3f}, {last['images_per_second']:.0f} images/s, "
                f"data wait {100 * last['data_wait_fraction']:.0f} %"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

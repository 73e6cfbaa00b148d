# SPDX-License-Identifier: Apache-2.0
"""Supervision of the ranks: filtered output, exit code, signals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading

import pytest

from launch.launchers.horovodrun_output import HorovodrunReader
from launch.launchers.supervise import Reader, print_output, supervise


def test_the_output_of_a_single_rank_is_unchanged(capsys):
    text = "  indented\n\n[0]<stdout>:not a prefix here\nExit code: 3\n"
    reader = Reader()
    print_output(io.StringIO(text), "stdout", reader, None)
    print_output(io.StringIO("a warning\n"), "stderr", reader, None)
    assert reader.code is None
    assert capsys.readouterr() == (text, "a warning\n")


@pytest.fixture
def same_signals():
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("output", "status", "code"),
    [
        ("Exit code: 2\n", 1, 2),
        ("Exit code: 143\n", 1, 143),
        ("[0]<stdout>:done\n", 0, 0),
        ("", 7, 7),
    ],
    ids=["refused", "stopped", "good", "launcher fails"],
)
def test_the_exit_code_is_that_of_the_ranks(output, status, code, capfd, same_signals):
    program = f"import sys; sys.stdout.write({output!r}); sys.exit({status})"
    assert supervise([sys.executable, "-c", program], os.environ, HorovodrunReader([])) == code


def test_the_exit_code_of_a_killed_rank_is_128_plus_its_signal(same_signals):
    program = "import os; os.kill(os.getpid(), 9)"
    assert supervise([sys.executable, "-c", program], os.environ, Reader()) == 128 + 9


class BothStreams(Reader):
    stderr = subprocess.PIPE

    def read(self, line, stream):
        if stream == "stderr":
            self.code = int(line)
            return None
        return line, stream


def test_a_reader_can_filter_both_streams(capsys, same_signals):
    program = "import sys; print('out'); sys.stderr.write('5\\n'); sys.exit(1)"
    assert supervise([sys.executable, "-c", program], os.environ, BothStreams()) == 5
    assert capsys.readouterr() == ("out\n", "")


class WhenReady(Reader):
    def __init__(self):
        super().__init__()
        self.ready = threading.Event()

    def read(self, line, stream):
        self.ready.set()
        return line, stream


def test_a_signal_is_forwarded_once_and_the_output_read_to_its_end(capsys, same_signals):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    reader = WhenReady()

    def send_signal():
        reader.ready.wait(120)
        # From another process, because this thread could receive its own signal.
        kill = f"import os; os.kill({os.getpid()}, {int(signal.SIGTERM)})"
        subprocess.run([sys.executable, "-c", kill], check=True)

    threading.Thread(target=send_signal).start()
    assert supervise([sys.executable, "-c", program], os.environ, reader) == 143
    assert capsys.readouterr().out == "ready\nsaved\n"

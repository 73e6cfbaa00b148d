# SPDX-License-Identifier: Apache-2.0
"""The companion of a rank: log, forwarded output, and the end of the rank with its launcher."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.ranks.companion import POLL_S

TIMEOUT_S = 60.0  # of the wait for an event

START = """
import os, signal, sys, time
from pathlib import Path
from launch.ranks.output import attach_companion
output = attach_companion()
folder = Path(sys.argv[1])
"""
CHATTER = """
(folder / "pid").write_text(str(os.getpid()))
number = 0
while True:
    number += 1
    print("line", number, flush=True)
    time.sleep(0.01)
"""
# A program that starts the command of its arguments; its file name makes it a launcher.
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def program(text):
    return [sys.executable, "-c", START + text]


@pytest.fixture
def started(tmp_path):
    """Return a function that starts processes; kill all of them and their children at the end."""
    processes = []

    def start(command, **options):
        environment = {**os.environ, "TMPDIR": str(tmp_path), "COMPANION_TEST": str(tmp_path)}
        environment.update(options.pop("env", {}))
        process = subprocess.Popen(command, env=environment, preexec_fn=without_nohup, **options)
        processes.append(process)
        return process

    yield start
    for pid in marked(tmp_path):
        os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def without_nohup():
    """Restore the default of SIGHUP, in case the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def marked(folder):
    """Return the running processes of a test, which have its folder in their environment."""
    mark, found = f"COMPANION_TEST={folder}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in environment and state != "Z":
                found.append(int(entry.name))
    return found


def until(met):
    give_up = time.monotonic() + TIMEOUT_S
    while not met():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def run(text, folder, **options):
    environment = {**os.environ, "TMPDIR": str(folder), **options.pop("env", {})}
    return subprocess.run(
        [*program(text), str(folder)], capture_output=True, env=environment, **options
    )


def test_output_is_forwarded_and_logged(tmp_path):
    text = """
print("before")
print("fault", file=sys.stderr)
output.log_to(folder)
os.write(1, b"from a library, without a newline")
"""
    done = run(text, tmp_path)
    assert done.returncode == 0
    assert done.stdout == b"before\nfrom a library, without a newline"
    assert done.stderr == b"fault\n"
    kept = lines(tmp_path / "train.log")
    assert sorted(kept) == ["before", "fault", "from a library, without a newline"]
    assert os.listdir(tmp_path) == ["train.log"]  # and no temporary file


def test_a_resumed_run_appends_to_the_log(tmp_path):
    (tmp_path / "train.log").write_text("earlier\n")
    run("output.log_to(folder); print('now')", tmp_path)
    assert lines(tmp_path / "train.log") == ["earlier", "now"]


def test_a_run_without_a_folder_leaves_no_file(tmp_path):
    done = run("print('refused'); sys.exit(2)", tmp_path)
    assert (done.returncode, done.stdout, os.listdir(tmp_path)) == (2, b"refused\n", [])


def test_the_last_output_of_a_killed_rank_is_logged(tmp_path, started):
    text = "output.log_to(folder)\nprint('last output')\nos.kill(os.getpid(), 9)"
    started([*program(text), str(tmp_path)], stdout=subprocess.DEVNULL)
    until(lambda: len(lines(tmp_path / "train.log")) == 2)
    first, second = lines(tmp_path / "train.log")
    assert first == "last output"
    assert second == (
        f"run_train: rank 0 on {socket.gethostname()} was killed by signal 9 (SIGKILL); `dmesg` on "
        "that host says whether its memory ran out; the same command resumes the run from its last "
        "checkpoint"
    )


def test_a_rank_that_has_closed_its_output_before_its_end_is_named(tmp_path, started):
    text = """
output.log_to(folder)
(folder / "pid").write_text(str(os.getpid()))
for number in (1, 2):
    os.close(number)
while True:
    time.sleep(0.01)
"""
    process = started([*program(text), str(tmp_path)], stderr=subprocess.PIPE)
    until((tmp_path / "pid").exists)
    time.sleep(0.1)
    process.kill()
    assert "was killed by signal 9 (SIGKILL); " in process.stderr.read().decode()
    assert len(lines(tmp_path / "train.log")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_user_reads_which_signal_killed_the_rank(number, tmp_path, started):
    text = f"os.kill(os.getpid(), {int(number)})"
    process = started([*program(text), str(tmp_path)], stderr=subprocess.PIPE)
    shown = process.stderr.read().decode()  # until the companion has ended
    assert process.wait() == -number
    *stack, message = shown.splitlines()
    assert f"was killed by signal {int(number)} ({number.name}); " in message
    first = ["Fatal Python error: Segmentation fault"] if number == signal.SIGSEGV else []
    assert stack[:1] == first


@pytest.mark.parametrize("text", ["os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(3)"])
def test_a_stopped_or_ended_rank_prints_no_further_message(text, tmp_path, started):
    process = started([*program(text), str(tmp_path)], stderr=subprocess.PIPE)
    assert process.stderr.read() == b""


def test_a_traceback_is_logged(tmp_path):
    done = run("output.log_to(folder)\nraise RuntimeError('broken')", tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "RuntimeError: broken"
    assert lines(tmp_path / "train.log")[-1] == "RuntimeError: broken"


def test_lines_of_other_ranks_have_a_prefix(tmp_path):
    run("output.log_to(folder)\nprint('a\\nb')", tmp_path, env={"HOROVOD_RANK": "3"})
    assert lines(tmp_path / "train.log") == ["[3] a", "[3] b"]


def test_a_reader_that_does_not_read_never_blocks_the_rank(tmp_path, started):
    text = """
output.log_to(folder)
for number in range(60000):
    print(f"line {number:06d} {'x' * 40}")
(folder / "done").touch()
"""
    rank = started([*program(text), str(tmp_path)], stdout=subprocess.PIPE)
    until((tmp_path / "done").exists)  # 3.2 MB, although the pipe holds 64 KiB
    output = rank.stdout.read().decode()
    assert rank.wait() == 0
    assert len(lines(tmp_path / "train.log")) == 60000
    assert output.startswith("line 000000 ")
    assert len(output) < 3_000_000  # the rest was dropped


def test_dropped_output_is_reported_before_later_output(tmp_path, started):
    text = """
output.log_to(folder)
for number in range(60000):
    print(f"line {number:06d} {'x' * 40}")
(folder / "done").touch()
while not (folder / "read").exists():
    time.sleep(0.01)
print("the end")
"""
    rank = started([*program(text), str(tmp_path)], stdout=subprocess.PIPE)
    until(lambda: len(lines(tmp_path / "train.log")) == 60000)
    output = os.read(rank.stdout.fileno(), 1 << 16)
    while len(output) < 1_000_000:
        output += os.read(rank.stdout.fileno(), 1 << 16)
    (tmp_path / "read").touch()
    output = (output + rank.stdout.read()).decode()
    assert "bytes of output are missing here, because the reader was too slow; " in output
    assert output.endswith("the end\n")


@pytest.mark.parametrize("ignored", [False, True], ids=["", "nohup"])
def test_a_closed_pipe_ends_the_rank_unless_nohup(tmp_path, started, ignored):
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" if ignored else ""
    # nohup ignores SIGHUP before the program, and so the companion, starts.
    command = [
        sys.executable,
        "-c",
        "import signal\n" + ignore + program("output.log_to(folder)\n" + CHATTER)[2],
        str(tmp_path),
    ]
    rank = started(command, stdout=subprocess.PIPE)
    assert rank.stdout.readline() == b"line 1\n"
    rank.stdout.close()
    if ignored:
        first = len(lines(tmp_path / "train.log"))
        until(lambda: len(lines(tmp_path / "train.log")) > first + 120)
        assert rank.poll() is None
        return
    assert rank.wait(TIMEOUT_S) == -signal.SIGTERM
    until(lambda: not marked(tmp_path))
    assert "run_train: asked to stop: the reader of the output has closed its pipe" in lines(
        tmp_path / "train.log"
    )


def test_a_rank_that_ignores_sigterm_is_killed(tmp_path, started):
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHATTER
    rank = started([*program(deaf), str(tmp_path)], stdout=subprocess.PIPE)
    rank.stdout.readline()
    rank.stdout.close()
    assert rank.wait(TIMEOUT_S) == -signal.SIGKILL
    until(lambda: not marked(tmp_path))


def test_a_rank_ends_with_its_launcher(tmp_path, started):
    script = tmp_path / "horovodrun"
    script.write_text(LAUNCHER)
    inner = ["sh", "-c", 'true; "$@"; true', "sh", *program(CHATTER), str(tmp_path)]
    launcher = started(
        [sys.executable, str(script), *inner], stdout=subprocess.DEVNULL, start_new_session=True
    )
    # Launcher, shell, rank, companion.  A process has no environment for a moment while it starts.
    until(lambda: len(marked(tmp_path)) == 4 and (tmp_path / "pid").exists())
    launcher.kill()
    until(lambda: len(marked(tmp_path)) <= 1)  # the shell may still be ending


@pytest.mark.parametrize("early", [False, True], ids=["", "before the companion reads"])
def test_a_killed_rank_is_named_although_its_shell_has_ended_too(early, tmp_path, started):
    script = tmp_path / "horovodrun"
    script.write_text("import subprocess, sys, time; subprocess.run(sys.argv[1:]); time.sleep(600)")
    stop = "os.kill(output._process.pid, signal.SIGSTOP)\n" if early else ""
    text = stop + "(folder / 'companion').write_text(str(output._process.pid))\n" + CHATTER
    shell = ["sh", "-c", 'true; "$@"; exit 137', "sh", *program(text), str(tmp_path)]
    launcher = started(
        [sys.executable, str(script), *shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    companion = int((tmp_path / "companion").read_text())
    if not early:
        assert launcher.stdout.readline() == b"line 1\n"
        os.kill(companion, signal.SIGSTOP)  # a busy machine delays the companion
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    until(lambda: set(marked(tmp_path)) == {launcher.pid, companion})
    time.sleep(2 * POLL_S)  # the next check of the launcher is due
    os.kill(companion, signal.SIGCONT)
    until(lambda: marked(tmp_path) == [launcher.pid])
    launcher.kill()
    shown = launcher.stderr.read().decode()
    assert f"run_train: rank 0 on {socket.gethostname()} was killed " in shown


def test_a_rank_without_a_launcher_outlives_its_parent(tmp_path, started):
    script = tmp_path / "some_shell"
    script.write_text(LAUNCHER)
    parent = started(
        [
            sys.executable,
            str(script),
            *program("output.log_to(folder)\n" + CHATTER),
            str(tmp_path),
        ],
        stdout=subprocess.DEVNULL,
    )
    until((tmp_path / "pid").exists)
    parent.kill()
    first = len(lines(tmp_path / "train.log"))
    until(lambda: len(lines(tmp_path / "train.log")) > first + 120)


def test_a_rank_outlives_its_terminal(tmp_path, started):
    ours, theirs = pty.openpty()
    rank = started(
        [*program("output.log_to(folder)\n" + CHATTER), str(tmp_path)],
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # setsid: no controlling terminal, no SIGHUP
    )
    os.close(theirs)
    assert os.read(ours, 4) == b"line"
    os.close(ours)
    first = len(lines(tmp_path / "train.log"))
    until(lambda: len(lines(tmp_path / "train.log")) > first + 120)
    assert rank.poll() is None


def test_characters_outside_the_launchers_encoding_are_escaped(tmp_path):
    environment = {"HOROVOD_RANK": "0", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = run(r"output.log_to(folder); print('\xfc \u9854 \udcff')", tmp_path, env=environment)
    assert done.stdout.decode() == "ü \\u9854 \\udcff\n"
    assert lines(tmp_path / "train.log") == ["ü 顔 \\udcff"]
    alone = run(r"print('\xfc \u9854')", tmp_path, env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert alone.stdout.decode() == "ü 顔\n"


def test_a_full_disk_is_reported_once(tmp_path):
    text = "output.log_to(folder)\nfor n in range(3): print('line', n); time.sleep(0.1)"
    (tmp_path / "train.log").symlink_to("/dev/full")
    done = run(text, tmp_path)
    assert done.stdout == b"line 0\nline 1\nline 2\n"
    assert done.stderr.decode() == (
        "run_train: train.log cannot be written, got No space left on device; free disk space\n"
    )


def test_a_forked_worker_ends_with_its_rank(tmp_path, started):
    text = """
from launch.ranks.lifeline import kill_forks_at_exit
kill_forks_at_exit()
if os.fork() == 0:
    (folder / "worker").touch()
    time.sleep(600)
while not (folder / "worker").exists():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    started([*program(text), str(tmp_path)], stdout=subprocess.DEVNULL)
    until((tmp_path / "worker").exists)
    until(lambda: not marked(tmp_path))

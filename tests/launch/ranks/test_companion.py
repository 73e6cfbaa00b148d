# SPDX-License-Identifier: Apache-2.0
"""The process beside a rank: keeps its output, waits for nobody, ends it with its launcher."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAIT_S = 60.0  # until something counts as never happening

START = """
import os, signal, sys, time
from pathlib import Path
from launch.ranks.output import attach
output = attach()
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
# A launcher with a name that counts as one, which starts the program of its arguments.
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def program(text):
    return [sys.executable, "-c", START + text]


@pytest.fixture
def started(tmp_path):
    """Start processes in the folder of the test; kill all of them and what they left at the end."""
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
    """Have SIGHUP's default back, whatever the tests run under."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def marked(folder):
    """Return the live processes that a test has started, by its mark in their environment."""
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
    give_up = time.monotonic() + WAIT_S
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


def test_output_is_passed_on_and_kept_in_the_folder(tmp_path):
    text = """
print("before")
print("fault", file=sys.stderr)
output.keep_in(folder)
os.write(1, b"from a library, not a whole line")
"""
    done = run(text, tmp_path)
    assert done.returncode == 0
    assert done.stdout == b"before\nfrom a library, not a whole line"
    assert done.stderr == b"fault\n"
    kept = lines(tmp_path / "train.log")
    assert sorted(kept) == ["before", "fault", "from a library, not a whole line"]
    assert os.listdir(tmp_path) == ["train.log"]  # no temporary file is left


def test_a_resumed_run_adds_to_the_log(tmp_path):
    (tmp_path / "train.log").write_text("of before\n")
    run("output.keep_in(folder); print('now')", tmp_path)
    assert lines(tmp_path / "train.log") == ["of before", "now"]


def test_a_run_without_a_folder_leaves_nothing(tmp_path):
    done = run("print('refused'); sys.exit(2)", tmp_path)
    assert (done.returncode, done.stdout, os.listdir(tmp_path)) == (2, b"refused\n", [])


def test_the_last_words_of_a_killed_rank_are_kept(tmp_path, started):
    text = "output.keep_in(folder)\nprint('last words')\nos.kill(os.getpid(), 9)"
    started([*program(text), str(tmp_path)], stdout=subprocess.DEVNULL)
    until(lambda: lines(tmp_path / "train.log") == ["last words"])


def test_a_traceback_is_kept(tmp_path):
    done = run("output.keep_in(folder)\nraise RuntimeError('broken')", tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "RuntimeError: broken"
    assert lines(tmp_path / "train.log")[-1] == "RuntimeError: broken"


def test_other_ranks_mark_their_lines(tmp_path):
    run("output.keep_in(folder)\nprint('a\\nb')", tmp_path, env={"HOROVOD_RANK": "3"})
    assert lines(tmp_path / "train.log") == ["[3] a", "[3] b"]


def test_output_that_nobody_reads_stops_nobody(tmp_path, started):
    text = """
output.keep_in(folder)
for number in range(60000):
    print(f"line {number:06d} {'x' * 40}")
(folder / "done").touch()
"""
    rank = started([*program(text), str(tmp_path)], stdout=subprocess.PIPE)
    until((tmp_path / "done").exists)  # 3.2 MB went into a pipe of 64 KiB
    said = rank.stdout.read().decode()  # now it is read
    assert rank.wait() == 0
    assert len(lines(tmp_path / "train.log")) == 60000
    assert said.startswith("line 000000 ")
    assert len(said) < 3_000_000  # most of it is in the log alone


def test_what_was_dropped_is_said_where_more_comes(tmp_path, started):
    text = """
output.keep_in(folder)
for number in range(60000):
    print(f"line {number:06d} {'x' * 40}")
(folder / "done").touch()
while not (folder / "read").exists():
    time.sleep(0.01)
print("the end")
"""
    rank = started([*program(text), str(tmp_path)], stdout=subprocess.PIPE)
    until(lambda: len(lines(tmp_path / "train.log")) == 60000)
    said = os.read(rank.stdout.fileno(), 1 << 16)
    while len(said) < 1_000_000:
        said += os.read(rank.stdout.fileno(), 1 << 16)
    (tmp_path / "read").touch()
    said = (said + rank.stdout.read()).decode()
    assert "bytes of output are not shown: they were not read in time; train.log has them]" in said
    assert said.endswith("the end\n")


@pytest.mark.parametrize("ignored", [False, True], ids=["", "nohup"])
def test_a_closed_pipe_ends_the_rank_unless_nohup(tmp_path, started, ignored):
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" if ignored else ""
    # Before the companion starts, as nohup does.
    command = [
        sys.executable,
        "-c",
        "import signal\n" + ignore + program("output.keep_in(folder)\n" + CHATTER)[2],
        str(tmp_path),
    ]
    rank = started(command, stdout=subprocess.PIPE)
    assert rank.stdout.readline() == b"line 1\n"
    rank.stdout.close()
    if ignored:
        begun = len(lines(tmp_path / "train.log"))
        until(lambda: len(lines(tmp_path / "train.log")) > begun + 120)
        assert rank.poll() is None
        return
    assert rank.wait(WAIT_S) == -signal.SIGTERM
    until(lambda: not marked(tmp_path))
    assert (
        "run_train: asked to stop: nobody reads the output any more: its pipe was closed"
        in lines(tmp_path / "train.log")
    )


def test_a_rank_that_does_not_stop_is_killed(tmp_path, started):
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHATTER
    rank = started([*program(deaf), str(tmp_path)], stdout=subprocess.PIPE)
    rank.stdout.readline()
    rank.stdout.close()
    assert rank.wait(WAIT_S) == -signal.SIGKILL
    until(lambda: not marked(tmp_path))


def test_a_rank_ends_with_its_launcher(tmp_path, started):
    script = tmp_path / "horovodrun"
    script.write_text(LAUNCHER)
    inner = ["sh", "-c", 'true; "$@"; true', "sh", *program(CHATTER), str(tmp_path)]
    launcher = started(
        [sys.executable, str(script), *inner], stdout=subprocess.DEVNULL, start_new_session=True
    )
    until((tmp_path / "pid").exists)
    assert len(marked(tmp_path)) == 4  # launcher, shell, rank, companion
    launcher.kill()
    until(lambda: len(marked(tmp_path)) <= 1)  # the shell alone may see to its end


def test_a_rank_that_no_launcher_started_lives_on_without_its_parent(tmp_path, started):
    script = tmp_path / "some_shell"
    script.write_text(LAUNCHER)
    parent = started(
        [
            sys.executable,
            str(script),
            *program("output.keep_in(folder)\n" + CHATTER),
            str(tmp_path),
        ],
        stdout=subprocess.DEVNULL,
    )
    until((tmp_path / "pid").exists)
    parent.kill()
    begun = len(lines(tmp_path / "train.log"))
    until(lambda: len(lines(tmp_path / "train.log")) > begun + 120)


def test_a_rank_goes_on_without_its_terminal(tmp_path, started):
    ours, theirs = pty.openpty()
    rank = started(
        [*program("output.keep_in(folder)\n" + CHATTER), str(tmp_path)],
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # setsid: no controlling terminal, no SIGHUP
    )
    os.close(theirs)
    assert os.read(ours, 4) == b"line"
    os.close(ours)
    begun = len(lines(tmp_path / "train.log"))
    until(lambda: len(lines(tmp_path / "train.log")) > begun + 120)
    assert rank.poll() is None


def test_a_launcher_that_lacks_a_character_gets_it_escaped(tmp_path):
    environment = {"HOROVOD_RANK": "0", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = run(r"output.keep_in(folder); print('\xfc \u9854 \udcff')", tmp_path, env=environment)
    assert done.stdout.decode() == "ü \\u9854 \\udcff\n"
    assert lines(tmp_path / "train.log") == ["ü 顔 \\udcff"]
    alone = run(r"print('\xfc \u9854')", tmp_path, env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert alone.stdout.decode() == "ü 顔\n"


def test_a_full_disk_is_said_once(tmp_path):
    text = "output.keep_in(folder)\nfor n in range(3): print('line', n); time.sleep(0.1)"
    (tmp_path / "train.log").symlink_to("/dev/full")
    done = run(text, tmp_path)
    assert done.stdout == b"line 0\nline 1\nline 2\n"
    assert done.stderr.decode() == (
        "run_train: train.log cannot be written, got No space left on device; make room\n"
    )


def test_a_forked_worker_ends_with_its_rank(tmp_path, started):
    text = """
from launch.ranks.lifeline import tie_forks
tie_forks()
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

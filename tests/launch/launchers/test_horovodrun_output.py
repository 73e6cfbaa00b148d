# SPDX-License-Identifier: Apache-2.0
"""Filter of the output of horovodrun: prefixes, exit codes and killed or crashed ranks."""

from __future__ import annotations

import io

import pytest

from launch.launchers.horovodrun_output import HorovodrunReader
from launch.launchers.supervise import print_output

HOSTS = ["gpu1", "gpu2"]

# Output of horovodrun when both ranks exit with code 2.
REFUSED = """\
[0]<stdout>:run runs/demo-001  ranks 2  device cpu(0)  threads 1
[1]<stdout>:a line of rank 1
[1]<stderr>:a warning of rank 1
[0]<stderr>:run_train: data.records: no such file
Process 1 exit with status code 2.
Terminating remaining workers after failure of Process 1.
[0]<stderr>:Terminated
Process 0 exit with status code 2.
Traceback (most recent call last):
  File "/home/me/.venv/bin/horovodrun", line 8, in <module>
    sys.exit(run_commandline())
RuntimeError: Horovod detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:
Process name: 1
Exit code: 2
""".replace("causing\nthe", "causing the")


def test_horovodruns_prefixes_and_traceback_are_removed(capsys):
    reader = HorovodrunReader(HOSTS)
    print_output(io.StringIO(REFUSED), "stdout", reader, None)
    assert reader.code == 2
    shown = capsys.readouterr()
    assert shown.out == "run runs/demo-001  ranks 2  device cpu(0)  threads 1\n"
    assert shown.err == "a warning of rank 1\nrun_train: data.records: no such file\n"


def test_the_output_of_a_successful_run_contains_no_exit_code(capsys):
    good = "[0]<stdout>:step 1/2  loss 3\n[1]<stdout>:step 1/2  loss 3\n[0]<stdout>:done\n"
    reader = HorovodrunReader(HOSTS)
    print_output(io.StringIO(good), "stdout", reader, None)
    assert reader.code is None
    assert capsys.readouterr().out == "step 1/2  loss 3\ndone\n"


@pytest.mark.parametrize(
    ("codes", "first", "code"),
    [((143, 255), 255, 143), ((255, 1), 255, 1), ((255, 255), 255, 255), ((2, 143), 2, 2)],
)
def test_an_exit_code_of_a_rank_precedes_that_of_ssh(codes, first, code):
    lines = [f"Process {n} exit with status code {c}.\n" for n, c in enumerate(codes)]
    reader = HorovodrunReader(HOSTS)
    print_output(io.StringIO("".join([*lines, f"Exit code: {first}\n"])), "stdout", reader, None)
    assert reader.code == code


KILLED = """\
[0]<stderr>:[12:22:01.9: E /tmp/o.cc:697] [0]: Horovod background loop uncaught exception: [] Read
[1]<stderr>:Killed
[1]<stderr>:run_train: rank 1 on gpu2 STATE; `dmesg` on that host says whether its memory ran out
Process 1 exit with status code 137.
Terminating remaining workers after failure of Process 1.
Exit code: 137
"""


@pytest.mark.parametrize("state", ["was killed or crashed", "was killed by signal 9 (SIGKILL)"])
def test_the_signal_that_killed_a_rank_is_shown_in_one_message(state, capsys):
    reader = HorovodrunReader(HOSTS)
    print_output(io.StringIO(KILLED.replace("STATE", state)), "stdout", reader, None)
    assert reader.code == 137
    assert capsys.readouterr() == (
        "",
        "run_train: rank 1 on gpu2 was killed by signal 9 (SIGKILL); `dmesg` on that host says "
        "whether its memory ran out\n",
    )


def test_a_killed_rank_is_named_without_its_signal_if_horovodrun_ends_first(capsys):
    cut = KILLED.replace("STATE", "was killed or crashed").partition("Process 1")[0]
    print_output(io.StringIO(cut), "stdout", HorovodrunReader(HOSTS), None)
    assert capsys.readouterr().err == (
        "run_train: rank 1 on gpu2 was killed or crashed; `dmesg` on that host says whether its "
        "memory ran out\n"
    )


@pytest.mark.parametrize(
    ("before", "code", "message"),
    [
        ("", -9, "run_train: rank 1 on gpu2 was killed by signal 9 (SIGKILL); `dmesg` on that "),
        ("", 137, "run_train: rank 1 on gpu2 was killed by signal 9 (SIGKILL); `dmesg` on that "),
        ("[0]<stderr>:a warning\n", 139, "a warning\nrun_train: rank 1 on gpu2 was killed by s"),
        ("[0]<stderr>:run_train: a message\n", 137, "run_train: a message\n"),
        ("", 143, ""),  # SIGTERM is a stop request
        ("", 1, ""),
    ],
)
def test_a_killed_rank_is_named_if_no_process_of_the_run_named_it(before, code, message, capsys):
    output = f"{before}Process 1 exit with status code {code}.\nExit code: {code}\n"
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    shown = capsys.readouterr().err
    assert shown.startswith(message) and bool(shown) == bool(message)
    assert shown.count("run_train: ") <= 1


@pytest.mark.parametrize(
    ("exits", "named"),
    [("0:137 1:134", 0), ("1:134 0:137", 1), ("1:134", 1), ("", 1), ("0:1 1:134", 1)],
)
def test_of_a_crashed_and_a_killed_rank_the_first_one_is_named(exits, named, capsys):
    message = "rank 1 on gpu2 was killed by signal 6 (SIGABRT); advice"
    (shown,) = show_message(message, exits, capsys)
    assert shown.startswith(f"run_train: rank {named} on {HOSTS[named]} was killed by signal ")


@pytest.mark.parametrize(
    ("exits", "state"),
    [
        ("0:137 1:143", "was killed by signal 9 (SIGKILL)"),
        ("1:1 0:137", "has not answered for 30 s"),  # horovodrun has killed the frozen rank
        ("1:1", "has not answered for 30 s"),
    ],
)
def test_a_rank_that_did_not_answer_because_it_was_killed_is_named_so(exits, state, capsys):
    (shown,) = show_message("rank 0 on gpu1 has not answered for 30 s; advice", exits, capsys)
    assert shown.startswith(f"run_train: rank 0 on gpu1 {state}; ")


def show_message(message, exits, capsys):
    """Return the lines that are printed after a message and exits, such as "0:137 1:143"."""
    codes = [one.split(":") for one in exits.split()]
    output = f"[1]<stderr>:run_train: {message}\n"
    output += "".join(f"Process {rank} exit with status code {code}.\n" for rank, code in codes)
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    return capsys.readouterr().err.splitlines()


def test_a_rank_that_horovodrun_killed_is_not_named(capsys):
    output = "Process 1 exit with status code 1.\nProcess 0 exit with status code 137.\n"
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    assert capsys.readouterr().err == ""


CRASHED = """\
[1]<stderr>:double free or corruption (!prev)
[0]<stderr>:Fatal Python error: Segmentation fault
[0]<stderr>:
[0]<stderr>:Stack
[0]<stderr>:Segmentation fault
[0]<stderr>:run_train: rank NAMED
Exit code: 134
"""


@pytest.mark.parametrize(
    ("named", "lines"),
    [
        ("0 was killed by signal 11 (SIGSEGV)", "Fatal Python error: Segmentation fault\nStack\n"),
        ("1 was killed by signal 6 (SIGABRT)", "double free or corruption (!prev)\n"),
        ("2 was killed by signal 9 (SIGKILL)", ""),
    ],
)
def test_the_last_words_of_a_crashed_rank_are_shown_if_it_is_named(named, lines, capsys):
    output = CRASHED.replace("NAMED", named)
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    assert capsys.readouterr().err == f"{lines}run_train: rank {named}\n"


def test_the_lines_of_a_crashed_rank_are_shown_if_no_message_names_a_rank(capsys):
    output = """\
[0]<stderr>:run_train: train.log cannot be written
[1]<stderr>:free(): invalid pointer
[1]<stderr>:further line
"""
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    assert capsys.readouterr().err == (
        "run_train: train.log cannot be written\nfree(): invalid pointer\nfurther line\n"
    )


def test_a_crash_is_named_after_a_message_about_the_log(capsys):
    output = """\
[1]<stderr>:run_train: train.log cannot be written
[1]<stderr>:run_train: rank 1 on gpu2 was killed or crashed; advice
Process 1 exit with status code 134.
"""
    print_output(io.StringIO(output), "stdout", HorovodrunReader(HOSTS), None)
    assert capsys.readouterr().err.splitlines() == [
        "run_train: train.log cannot be written",
        "run_train: rank 1 on gpu2 was killed by signal 6 (SIGABRT); advice",
    ]

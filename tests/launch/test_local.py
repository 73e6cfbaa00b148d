# SPDX-License-Identifier: Apache-2.0
"""The launcher of one host: what it starts, shows and returns."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from launch import local

ROOT = Path(__file__).resolve().parents[2]

# What horovodrun prints when both ranks end with code 2.
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


@pytest.mark.parametrize(
    ("argv", "ranks", "rest"),
    [
        (["--cfg", "a.yaml"], 1, ["--cfg", "a.yaml"]),
        (["-np", "3", "--cfg", "a.yaml"], 3, ["--cfg", "a.yaml"]),
        (["--cfg", "a.yaml", "-np", "2", "run.seed=1"], 2, ["--cfg", "a.yaml", "run.seed=1"]),
    ],
)
def test_number_of_ranks(argv, ranks, rest):
    assert local._split(argv) == (ranks, rest)


@pytest.mark.parametrize("argv", [["-np"], ["-np", "two"], ["-np", "0"], ["-np", "-1"]])
def test_what_is_no_number_of_ranks(argv, capsys):
    assert local._split(argv)[0] is None
    assert local.main([*argv, "--cfg", "a.yaml"] if len(argv) > 1 else argv) == 2
    assert capsys.readouterr().err == (
        "launch.local: -np must be a number of ranks above 0; use -np N --cfg FILE\n"
    )


def test_command_of_one_rank_and_of_several():
    train = [sys.executable, str(ROOT / "run_train.py"), "--cfg", "a.yaml"]
    assert local.command(1, ["--cfg", "a.yaml"]) == train
    horovodrun, *rest = local.command(4, ["--cfg", "a.yaml"])
    assert rest == ["-np", "4", *train]
    assert Path(horovodrun).name == "horovodrun" and Path(horovodrun).is_file()


def test_environment_shares_the_cores(monkeypatch):
    monkeypatch.setattr(os, "environ", {"HOME": "/home/me"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert local.environment(4) == {
        "HOME": "/home/me",
        "OMP_NUM_THREADS": "2",
        "PYTHONUNBUFFERED": "1",
    }
    assert local.environment(20)["OMP_NUM_THREADS"] == "1"
    os.environ["OMP_NUM_THREADS"] = "7"
    assert local.environment(4)["OMP_NUM_THREADS"] == "7"


def test_output_of_several_ranks_becomes_that_of_one(capsys):
    assert local.show(io.StringIO(REFUSED), 2, None) == 2
    shown = capsys.readouterr()
    assert shown.out == "run runs/demo-001  ranks 2  device cpu(0)  threads 1\n"
    assert shown.err == "a warning of rank 1\nrun_train: data.records: no such file\n"


def test_output_of_a_good_run_has_no_code(capsys):
    good = "[0]<stdout>:step 1/2  loss 3\n[1]<stdout>:step 1/2  loss 3\n[0]<stdout>:done\n"
    assert local.show(io.StringIO(good), 2, None) is None
    assert capsys.readouterr().out == "step 1/2  loss 3\ndone\n"


def test_output_of_one_rank_is_shown_as_it_is(capsys):
    text = "  indented\n\n[0]<stdout>:not a prefix here\nExit code: 3\n"
    assert local.show(io.StringIO(text), 1, None) is None
    assert capsys.readouterr().out == text


@pytest.fixture
def same_signals():
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("output", "status", "code"),
    [
        (REFUSED, 1, 2),
        (REFUSED.replace("Exit code: 2", "Exit code: 143"), 1, 143),
        ("[0]<stdout>:done\n", 0, 0),
        ("", 7, 7),
    ],
    ids=["refused", "stopped", "good", "launcher fails"],
)
def test_exit_code_is_that_of_the_ranks(output, status, code, monkeypatch, capfd, same_signals):
    program = f"import sys; sys.stdout.write({output!r}); sys.exit({status})"
    monkeypatch.setattr(local, "command", lambda ranks, rest: [sys.executable, "-c", program])
    assert local.main(["-np", "2", "--cfg", "a.yaml"]) == code


def test_a_killed_rank_gives_the_code_of_its_signal(monkeypatch, same_signals):
    program = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(local, "command", lambda ranks, rest: [sys.executable, "-c", program])
    assert local.main(["--cfg", "a.yaml"]) == 128 + 9


def test_bar_follows_the_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "ROOT", tmp_path)
    metrics = tmp_path / "runs" / "demo-001" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    stream = io.StringIO()
    bar = local.Bar(stream)
    bar.line("step 1/40  before there is a bar")
    bar.line("run runs/demo-001  ranks 2  device cpu(0)  threads 1")
    bar.line("step 10/40  epoch 0  loss 3.0000")
    bar.line("verify tiny: accuracy 0.9")
    metrics.write_text(
        '{"step": 10, "loss": 3.0, "images_per_second": 99.6, "data_wait_fraction": 0.25}\n'
        '{"step": 20, "loss": 2.5, "images_per_second": 99.6, "data_wait_fraction": 0.25}\n'
    )
    deadline = time.monotonic() + 60
    while "images/s" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.05)
    bar.close()
    text = stream.getvalue()
    assert "step 1/40  before there is a bar" in text and "verify tiny: accuracy 0.9" in text
    assert "step 10/40" not in text
    assert "20/40" in text and "loss 2.500, 100 images/s, data wait 25 %" in text

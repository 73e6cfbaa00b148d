# SPDX-License-Identifier: Apache-2.0
"""Command of the GPU day: prerequisites, selection of steps, and report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.gpu_day import prerequisites
from tools.gpu_day.__main__ import main, rename_old_results
from tools.gpu_day.report import CLAIMS, render, state, table
from tools.gpu_day.results import Parts, append_line, read_lines, read_parts, sentence
from tools.gpu_day.steps import STEPS, choose

ROOT = Path(__file__).resolve().parents[3]
MINUTES = 60


@pytest.fixture
def venv(tmp_path):
    """Return an environment whose Python reports no driver."""
    return make_venv(tmp_path / ".venv", "exit 1")


def make_venv(folder: Path, answer: str) -> Path:
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    (folder / prerequisites.COMPLETE).touch()
    return folder


def refusal(capsys, *arguments: object) -> str:
    """Run a command line that must be refused; return its one-sentence error."""
    assert main([str(argument) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("gpu_day: ") and error.count("\n") == 1
    return error


def test_a_missing_environment_is_refused(tmp_path, capsys):
    said = refusal(capsys, "--venv", tmp_path / ".venv", "--out", tmp_path / "out")
    assert (
        f"{tmp_path}/.venv: must be a complete Python environment, got none or a part; run `make "
        in said
    )
    assert not (tmp_path / "out").exists()


def test_an_incomplete_environment_is_refused(venv, tmp_path, capsys):
    (venv / prerequisites.COMPLETE).unlink()
    assert "run `make setup`" in refusal(capsys, "--venv", venv, "--out", tmp_path)


@pytest.mark.parametrize(("name", "target"), [(".venv-gpu", "make gpu"), (".venv", "make setup")])
def test_the_error_names_the_make_target_of_the_environment(name, target, tmp_path, capsys):
    assert f"run `{target}`" in refusal(capsys, "--venv", tmp_path / name)


def test_gpus_require_the_gpu_environment(tmp_path, capsys):
    venv = make_venv(tmp_path / ".venv", "echo 2")
    said = refusal(capsys, "--venv", venv, "--out", tmp_path)
    assert said.startswith(
        "gpu_day: this machine has 2 GPUs, so the environment must be the one for GPUs, got "
    )
    assert "the images are missing" in refusal(
        capsys, "--venv", venv, "--rehearse", "--records", tmp_path / "none", "--out", tmp_path
    )


def test_a_driver_that_hangs_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prerequisites, "DRIVER_TIMEOUT_S", 0.2)
    venv = make_venv(tmp_path / ".venv", "exec sleep 600")
    assert "driver does not answer" in refusal(capsys, "--venv", venv, "--out", tmp_path)


def test_an_interruption_before_the_first_step_is_no_traceback(venv, capsys, monkeypatch):
    def interrupted(python: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.gpu_day.__main__.count_gpus", interrupted)
    assert main(["--venv", str(venv)]) == 130
    assert capsys.readouterr().err == "gpu_day: stopped before the first step\n"


def test_missing_images_are_refused(venv, tiny_records, tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    given = ("--venv", venv, "--out", tmp_path / "out", "--records", folder)
    assert "got no train.rec, train.idx, property in" in refusal(capsys, *given)
    for name in ("train.rec", "train.idx", "property"):
        (folder / name).symlink_to(tiny_records / name)
    assert f"got no NAME.bin in {folder}; run `make sample`" in refusal(capsys, *given)


def test_an_unwritable_results_folder_is_refused(venv, tiny_records, tmp_path, capsys):
    (tmp_path / "file").touch()
    given = ("--venv", venv, "--out", tmp_path / "file" / "out", "--records", tiny_records)
    assert "the results cannot be written, got Not a directory" in refusal(capsys, *given)


def test_make_refuses_without_an_environment(tmp_path):
    """The system's interpreter has no packages; -S hides those of this environment."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "gpu-day", f"VENV={tmp_path}/.venv"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    wanted = f"gpu_day: {tmp_path}/.venv: must be a complete Python environment"
    assert done.stderr.startswith(wanted)


@pytest.mark.parametrize(
    ("gpus", "done"),
    [(0, [0, 1, 2, 5, 9]), (1, [0, 1, 2, 3, 4, 5, 8, 9]), (2, range(10)), (8, range(10))],
)
def test_the_number_of_gpus_selects_the_steps(gpus, done):
    assert [step.number for step in STEPS if not step.reason_to_skip(gpus)] == list(done)
    longest = sum(s.time_limit(gpus) for s in STEPS if not s.reason_to_skip(gpus))
    assert longest <= (10 if gpus else 5) * MINUTES


def test_a_skipped_step_gives_its_reason():
    assert STEPS[6].reason_to_skip(1) == "needs 2 GPUs, got 1"
    assert STEPS[6].reason_to_skip(0) == STEPS[3].reason_to_skip(0) == "no GPU"
    assert [step.number for step in choose(STEPS, [5, 3])] == [3, 5]


def test_results_of_an_earlier_day_are_renamed(tmp_path):
    lines = tmp_path / "gpu_day.jsonl"
    for text in ("first", "second"):
        lines.write_text(text)
        rename_old_results(lines)
    assert not lines.exists()
    assert (tmp_path / "gpu_day-1.jsonl").read_text() == "first"
    assert (tmp_path / "gpu_day-2.jsonl").read_text() == "second"


def test_a_failed_part_does_not_stop_the_next_one(tmp_path):
    parts = Parts(tmp_path / "parts")
    with parts.part("divided"):
        parts.measured("before", 1)
        _ = 1 / 0
    with parts.part("compared"):
        parts.require("compared", False, 3, "is wrong")
    assert parts.failed
    assert [tuple(part) for part in read_parts(tmp_path / "parts")] == [
        ("before", "measured", 1),
        ("divided", "failed", "ZeroDivisionError: division by zero"),
        ("compared", "failed", "is wrong"),
    ]
    error = RuntimeError("[12:00:00] src/a.cc:7:\n Check failed\nStack trace:\n  [bt] (0)")
    assert sentence(error) == "RuntimeError: [12:00:00] src/a.cc:7: Check failed"
    place = 'Traceback (most recent call last):\n  File "../src/a.cc", line 7\nMXNetError: '
    assert (
        sentence(RuntimeError(f"{place}GPU is not enabled")) == "RuntimeError: GPU is not enabled"
    )


def line(step: int, gpus: int, **found: dict) -> dict:
    states = {"measured": {}, "failed": {}, "skipped": {}} | found
    kind = "failed" if states["failed"] else "measured" if states["measured"] else "skipped"
    return {
        **{"step": step, "what": f"{step} name", "state": kind, "value": "skipped: no GPU"},
        **{"gpus": gpus, "time": "2027-01-02 10:00:00+0000", "log": "out/step.log", **states},
    }


def test_the_newest_line_of_a_step_counts_and_damaged_lines_are_skipped(tmp_path):
    path = tmp_path / "lines"
    for value in (1, 2):
        append_line(path, {"step": 3, "value": value})
    with path.open("a") as file:
        file.write('{"step": 4, "va\n\n[]\nnull\n')
    append_line(path, {"step": 1, "value": 0})
    assert [line["value"] for line in read_lines(path).values()] == [0, 2]
    assert list(read_lines(path)) == [1, 3]


def test_the_report_lists_measured_and_failed_parts():
    gpus = {"1 x": "Tesla T4 with compute capability 7.5", "driver_version": "550.1"}
    host = {"cpu": "Some CPU", "commit": "abc"}
    lines = {
        0: line(0, 1, measured={"GPUs and driver": gpus, "host": host}),
        2: line(
            2,
            1,
            measured={"operators of graphs": {"cases": 9}, "PReLU, fused": 2.5},
            failed={"hand-over": "3 | wrong"},
        ),
        6: line(6, 1),
    }
    rows = {claim: state(claim, lines) for claim in CLAIMS}
    by_name = {claim.what.split(" ")[0]: said for claim, said in rows.items()}
    assert by_name["values"] == "measured 2027-01-02: operators of graphs: cases 9"
    assert by_name["implementations"] == "measured 2027-01-02: PReLU, fused: 2.5"
    assert by_name["transfer"] == "**failed**: hand-over: 3 | wrong; log: out/step.log"
    assert by_name["two"] == "untested, skipped: no GPU"
    assert by_name["the"] == "untested: the step did not run"
    text = render(lines)
    assert text.startswith(
        "Measured 2027-01-02, 1 x Tesla T4 with compute capability 7.5, driver_version 550.1; "
        "CPU Some CPU, commit abc."
    )
    assert "| **failed**: hand-over: 3 / wrong; log: out/step.log |" in text
    assert "- step 2 name failed: " in text and text.count("log: out/step.log") == 2


def test_a_rehearsal_leaves_gpu_claims_untested():
    lines = {2: line(2, 0, measured={"operators of graphs": {"cases": 9}})}
    assert state(CLAIMS[1], lines).startswith("untested on a GPU; rehearsed with the CPU: ")


def test_docs_gpu_has_every_claim_and_step():
    document = (ROOT / "docs" / "gpu.md").read_text()
    for row in table({})[2:]:
        what = row.split(" | ")[0]
        assert f"{what} | " in document, f"docs/gpu.md has no row {what}"
    for step in STEPS:
        assert f"| {step.what} |" in document, f"docs/gpu.md does not mention step {step.what}"


def test_the_report_of_a_folder_without_results_is_refused(tmp_path):
    command = [sys.executable, "-m", "tools.gpu_day.report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "report: the results cannot be read, got No such file or directory"
    )
    append_line(tmp_path / "gpu_day.jsonl", line(8, 1))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| the GPU image with `--gpus all` | untested, skipped: no GPU |" in done.stdout


def test_lines_are_plain_json(tmp_path):
    append_line(tmp_path / "lines", {"what": "1 name", "state": "measured", "value": {"ü": 1.0}})
    assert json.loads((tmp_path / "lines").read_text())["value"] == {"ü": 1.0}

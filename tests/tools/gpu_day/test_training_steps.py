# SPDX-License-Identifier: Apache-2.0
"""Steps that start training runs, tested with prepared runs instead of real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.decode.dali import PATHS
from tools.gpu_day import all_ranks, one_rank, two_ranks
from tools.gpu_day.commands import Ended
from tools.gpu_day.gpu_watch import GpuWatch
from tools.gpu_day.one_rank import FUSION_TOLERANCE, ON_GPUS, change_devices, compare_losses
from tools.gpu_day.results import Parts, read_parts
from tools.gpu_day.setting import Setting
from tools.gpu_day.training_runs import Run, relative_difference

STEPS = 10


def parts_of(folder: Path) -> dict[str, tuple]:
    return {part.what: (part.state, part.value) for part in read_parts(folder / "parts")}


def finished(folder: Path, losses: dict[int, float], code: int = 0, text: str = "done") -> Run:
    """Write the files of a finished run and return the run."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines) + '{"cut')
    status = {"status": "finished" if not code else "failed"}
    (folder / "summary.json").write_text(json.dumps(status))
    return Run(Ended(code, text, 1.0), folder)


def test_losses_are_compared_with_their_reference(monkeypatch, tmp_path):
    factors = {
        "cpu": 1.0,
        "gpu plain": 1.001,
        "gpu plain, no TF32": 1.05,  # exceeds DEVICE_TOLERANCE
        "gpu plain, no fusion": 1.001 * (1 + FUSION_TOLERANCE / 2),
    }

    def train(setting, name, *overrides, **options):
        variant = ON_GPUS[int(name.removeprefix("losses"))].name
        if variant == "gpu native":
            return finished(tmp_path / name, {}, 2, "run_train: run.operators: none for GPUs")
        return finished(tmp_path / name, {s: factors[variant] * 5 / s for s in range(1, STEPS + 1)})

    monkeypatch.setattr(one_rank, "train", train)
    compare_losses(Setting(1, tmp_path, tmp_path), Parts(tmp_path / "parts"), ON_GPUS, STEPS)
    found = parts_of(tmp_path)
    assert found["losses, cpu"] == (
        "measured",
        {"losses": [*(round(5 / s, 4) for s in range(1, 9)), 0.5]},
    )
    assert found["losses, gpu plain"][1]["relative difference"] == "1.0e-03"
    assert found["losses, gpu native"] == ("skipped", "run_train: run.operators: none for GPUs")
    state, why = found["losses, gpu plain, no TF32"]
    assert state == "failed" and "losses of the run 'cpu' is 5.0e-02; at most 0.02" in why
    assert found["losses, gpu plain, no fusion"][0] == "measured"


def test_a_failed_run_is_a_failed_part(monkeypatch, tmp_path):
    monkeypatch.setattr(
        one_rank, "train", lambda *_, **__: finished(tmp_path / "run", {}, 1, "out of memory")
    )
    compare_losses(Setting(1, tmp_path, tmp_path), Parts(tmp_path / "parts"), ON_GPUS[:2], STEPS)
    wrong = "RuntimeError: the training run ended with exit code 1; last line: out of memory"
    assert set(parts_of(tmp_path).values()) == {("failed", wrong)}


def test_missing_losses_are_refused():
    assert relative_difference({1: 2.0, 2: 1.1}, {1: 2.0, 2: 1.0}, 2) == pytest.approx(0.1)
    with pytest.raises(RuntimeError, match="no loss was logged for step 2"):
        relative_difference({1: 2.0}, {1: 2.0, 2: 1.0}, 2)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_run_resumes_on_another_device(resumes, monkeypatch, tmp_path):
    calls = []

    def train(setting, name, *overrides, variables, while_running, **options):
        calls.append((dict(variables), while_running is None))
        count = len(calls)
        folder = tmp_path / "runs" / "changing-001"
        (folder / "checkpoints" / f"step-{count * 4:08d}").mkdir(parents=True)
        start = (count - 1) * 4 if resumes else 0
        output = f"resumed at step {start}, epoch 0, after 9 images" if start else "new"
        return finished(folder, {}, 0 if count == 3 else 137, output)

    monkeypatch.setattr(one_rank, "train", train)
    setting = Setting(1, tmp_path, tmp_path)
    if not resumes:
        with pytest.raises(
            RuntimeError,
            match="the run on cpu must resume at a step from 1 to .*, got step 0; last line: new",
        ):
            change_devices(setting, 20)
        return
    _, segments = change_devices(setting, 20)
    assert calls == [({}, False), ({"CUDA_VISIBLE_DEVICES": ""}, False), ({}, True)]
    assert segments == {
        "1. gpu": "from step 0 to 4",
        "2. cpu": "from step 4 to 8",
        "3. gpu": "from step 8 to 20",
    }


def test_ranks_must_end_with_code_and_sentence(tmp_path):
    parts = Parts(tmp_path / "parts")
    text = "step 1/2\nrun_train: train.rec: the image of key 11 is cut off\n"
    run = Run(Ended(2, text, 8.0), tmp_path)
    two_ranks._require_end(parts, "right", run, 2, "key 11")
    two_ranks._require_end(parts, "other code", run, 143)
    two_ranks._require_end(parts, "other sentence", run, 2, "key 12")
    found = parts_of(tmp_path)
    value = "code 2 after 8 s: run_train: train.rec: the image of key 11 is cut off"
    assert found["right"] == ("measured", value)
    assert [found[name][0] for name in ("other code", "other sentence")] == ["failed"] * 2


def test_decode_modes_without_remaining_time_are_skipped(monkeypatch, tmp_path):
    def train(setting, name, *overrides, **options):
        run = finished(tmp_path / name, {})
        found = {
            "images_per_second": 12.0,
            "data_wait_fraction": 0.25,
            "versions": {"decode": "cpu"},
        }
        (run.folder / "summary.json").write_text(json.dumps({"status": "finished", **found}))
        return slow(run, 1e6) if name == "mode-native" else run

    monkeypatch.setattr(all_ranks, "train", train)
    refused = Ended(2, "run_train: rank 0: run.device: 8 ranks, got 7 GPUs", 1.0)
    monkeypatch.setattr(all_ranks, "run", lambda *_, **__: refused)
    all_ranks.measure(Setting(8, tmp_path, tmp_path), Parts(tmp_path / "parts"))
    found = parts_of(tmp_path)
    assert found["9 ranks refused"] == ("measured", refused.text)
    speed = {"images/s": 12.0, "data wait": "25.0 %", "decode": "cpu"}
    assert found["r50_arcface.yaml, 8 ranks"] == ("measured", speed)
    states = [found[f"decode mode {mode}, 8 ranks"][0] for mode in PATHS]
    assert states == ["measured", "measured", *["skipped"] * 4]


def slow(run: Run, seconds: float) -> Run:
    return Run(run.ended._replace(seconds=seconds), run.folder)


@pytest.mark.parametrize(
    ("memory", "contexts", "states"),
    [
        ({}, {}, ["skipped", "skipped"]),
        ({20: 900, 100: 1000, 280: 1010}, {"a": 1, "b": 1}, ["measured", "measured"]),
        ({20: 900, 100: 1000, 280: 2000}, {"a": 2, "b": 1}, ["failed", "failed"]),
        ({20: 900}, {"a": 1}, ["measured", "failed"]),
    ],
)
def test_growing_memory_and_extra_contexts_fail(memory, contexts, states, tmp_path):
    watch = GpuWatch(tmp_path, ())
    watch.memory, watch.contexts = memory, contexts
    all_ranks._report_watch(Parts(tmp_path / "parts"), watch, 2)
    assert [state for state, _ in parts_of(tmp_path).values()] == states

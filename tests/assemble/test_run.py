# SPDX-License-Identifier: Apache-2.0
"""A run starts, is saved and resumes; its end and its schedules count images."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
import yaml

from assemble.inputs import open_inputs
from assemble.model import make_model
from assemble.run import Checkpointer, count_run_images, open_run
from heads import HEADS
from launch.config.cli import load_config
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from nets import NETS
from tests.assemble.configuration import make_config, make_synthetic
from training.checkpoint import open_checkpoint


@pytest.fixture
def begin(tmp_path):
    """Return ``begin(*overrides, comm, at_end)`` -> (config, inputs, run), in tmp_path/runs."""
    stack = ExitStack()

    def start(*overrides, comm=Comm(), at_end=stack):
        config = make_synthetic(f"run.dir={tmp_path / 'runs'}", *overrides)
        inputs = open_inputs(config, comm)
        return config, inputs, open_run(config, inputs, comm, at_end)

    yield start
    stack.close()


def test_a_new_run_creates_its_folder(begin, tmp_path):
    config, _, run = begin("train.max_steps=6", "optim.clip_norm=5", "run.seed=9")
    assert run.folder == tmp_path / "runs" / "small-001" and run.checkpoint is None
    assert run.progress.step == 0 and run.notices == ()
    assert (run.seed, run.clip_norm, run.global_batch_size) == (9, 5.0, 4)
    assert (run.epoch_images, run.end_images) == (4000, 24)
    kept = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert kept.pop("notes")["ranks"] == 1
    assert kept == config.to_dict()


def test_the_run_folder_is_locked_until_the_end(begin, tmp_path):
    with ExitStack() as at_end:
        begin(at_end=at_end)
        locked = [*tmp_path.glob("runs/small-001/run.lock")]
        assert locked and at_end.pop_all().close() is None
    begin()  # unfinished and unlocked: the same folder
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small-001"]


def test_a_saved_run_resumes_at_its_position(begin):
    with ExitStack() as at_end:
        config, inputs, run = begin(at_end=at_end)
        model, _ = make_model(config, inputs, run, Comm())
        run.progress.step, run.progress.images, run.progress.consumed = 3, 12, 12
        Checkpointer(config, inputs, run, model, comm=Comm()).save()
    state = open_checkpoint(run.folder).state
    assert state == {
        "progress": {"step": 3, "images": 12, "epoch": 0, "consumed": 12},
        "history": {
            **{"margin": None, "first_loss": 0.0, "last_loss": 0.0, "skipped": {}},
            **{"best_value": None, "best_step": 0, "verified_step": 0},
        },
        "epoch_images": 4000,
        "end_images": 24,
        "step_images": 4,
        "ranks": 1,
        "run": run.id,
        "data": {"images": 0, "people": 10, "image_size": [112, 112]},
        "meta": {
            "net": config.to_dict()["net"],
            "head": config.to_dict()["head"],
            "num_classes": 10,
            "classes": {"num_classes": 10, "sets": [], "runs": []},
            "image_size": [112, 112],
            "mean": 127.5,
            "std": 128.0,
        },
    }
    assert json.loads(json.dumps(state)) == state
    # Another batch size changes neither the epoch nor the end.
    _, _, resumed = begin("data.batch_size=8")
    assert resumed.folder == run.folder and resumed.progress == run.progress
    assert resumed.id == run.id and len(run.id) == 32
    assert begin("run.resume=false")[2].id != run.id
    assert resumed.checkpoint.folder.name == "step-00000003"
    assert (resumed.epoch_images, resumed.end_images) == (4000, 24)
    assert resumed.global_batch_size == 8


def test_older_checkpoints_are_deleted(begin):
    config, inputs, run = begin("train.keep_checkpoints=2")
    model, _ = make_model(config, inputs, run, Comm())
    checkpointer = Checkpointer(config, inputs, run, model, comm=Comm())
    for step in (1, 2, 3):
        run.progress.step = step
        checkpointer.save()
    names = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000003"]


def test_only_rank_0_writes_to_the_disk(begin, tmp_path):
    class Second(Comm):
        def gather_json(self, value):
            chosen = [str(tmp_path / "runs/small-004"), None, "id", ""]
            return [None, value] if value is None else [chosen]

    _, _, run = begin(comm=Second(1, 2, 1, 2))
    assert run.folder == tmp_path / "runs/small-004" and run.checkpoint is None
    assert run.id == "id"
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_run_folder_is_refused_on_all_ranks(begin, tmp_path):
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(Refused, match="runs: "):
        begin()


def test_changed_settings_are_refused_on_resume(begin):
    with ExitStack() as at_end:
        config, inputs, run = begin(at_end=at_end)
        model, _ = make_model(config, inputs, run, Comm())
        run.progress.step = 1
        Checkpointer(config, inputs, run, model, comm=Comm()).save()
    with pytest.raises(Refused, match=r"optim\.lr: 0\.1 -> 0\.2"):
        begin("optim.lr=0.2")


def test_the_classes_of_several_sets_are_recorded(make_records, tmp_path):
    folders = [make_records(3, 4), make_records(2, 5)]
    records = f"data.records=[{folders[0]}, {folders[1]}]"
    config = make_config(records, f"run.dir={tmp_path / 'runs'}")
    inputs = open_inputs(config, Comm())
    with ExitStack() as at_end:
        run = open_run(config, inputs, Comm(), at_end)
    kept = json.loads((run.folder / "classes.json").read_text())
    assert kept["record"] == [0, 0, 0, 1, 1] and kept["label"] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("overrides", "images"),
    [
        (["train.epochs=3", "train.max_steps=0"], 300),
        (["train.max_steps=6"], 48),
        (["train.max_images=30"], 30),
        (["train.epochs=1", "train.max_images=5000", "train.max_steps=1000"], 100),
    ],
)
def test_the_first_limit_ends_the_run(overrides, images):
    assert (
        count_run_images(make_synthetic(*overrides), epoch_images=100, global_batch_size=8)
        == images
    )


def test_dropped_keys_of_the_configuration_are_notices_of_the_run(tmp_path):
    folder = tmp_path / "small.yaml"
    config = make_synthetic(f"run.dir={tmp_path / 'runs'}")
    folder.write_text(yaml.safe_dump(config.to_dict()))
    config = load_config(["--cfg", str(folder), "head.name=cosface"], NETS, HEADS)
    with ExitStack() as at_end:
        run = open_run(config, open_inputs(config, Comm()), Comm(), at_end)
    assert run.notices == (
        "head: cosface replaces arcface of small.yaml; dropped the keys that cosface does not "
        "have: easy_margin=false, m2=0.5",
    )


def test_a_duration_in_steps_is_fixed_when_the_run_starts(begin):
    """A resumed run with another batch size changes the learning rate after the same images."""
    steps = ("train.max_steps=100", "optim.milestones=[50 steps]", "train.margin_start=1e1 steps")
    with ExitStack() as at_end:
        config, inputs, run = begin(*steps, at_end=at_end)
        model, _ = make_model(config, inputs, run, Comm())
        run.progress.step, run.progress.images = 3, 12
        Checkpointer(config, inputs, run, model, comm=Comm()).save()
    _, _, resumed = begin(*steps, "data.batch_size=8")
    assert resumed.checkpoint is not None and resumed.global_batch_size == 8
    for each in (run, resumed):
        assert [each.lr(images) for images in (199, 200)] == pytest.approx([0.1, 0.01])
        assert [each.margin(images) for images in (39, 40)] == [0, 1]


def test_schedules_follow_the_configuration(begin):
    _, _, run = begin(
        "train.max_steps=100",
        "optim.lr=0.4",
        "optim.milestones=[200 images, 75 %]",
        "optim.warmup=40 images",
        "train.margin_start=100 images",
        "train.margin_warmup=50 %",
    )
    rates = [run.lr(images) for images in (0, 20, 40, 199, 200, 299, 300)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.4, 0.04, 0.04, 0.004])
    assert [run.margin(images) for images in (99, 100, 200, 300)] == [0, 0, 0.5, 1]
    _, _, run = begin(
        *("run.name=cosine", "train.max_steps=100", "optim.schedule=cosine", "optim.final_lr=0.05"),
    )
    assert run.lr(400) == pytest.approx(0.05)
    _, _, run = begin("run.name=power", "train.max_steps=100", "optim.schedule=polynomial")
    assert run.lr(200) == pytest.approx(0.1 / 4)

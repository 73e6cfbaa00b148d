# SPDX-License-Identifier: Apache-2.0
"""The choice between a new run folder and the resume of an old run."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from training.run_folder import (
    RunFolderError,
    choose_run,
    status,
    unfinished_config,
    write_classes,
    write_config,
)
from training.run_lock import RunLock

CONFIG = {"optim": {"lr": 0.1}, "run": {"seed": 1}}


def differences(old, new):
    return [
        f"{section}.{key}: {old[section][key]} -> {value}"
        for section, values in new.items()
        for key, value in values.items()
        if old[section][key] != value
    ]


def choose(parent, config=CONFIG, resume=True, name="demo", data=None):
    run = choose_run(parent, name, resume=resume, config=config, differences=differences, data=data)
    run.lock.release()
    return run.folder, run.checkpoint


def write_checkpoint(folder, step=10, **state):
    """Write the smallest valid checkpoint: one file and its manifest."""
    import hashlib

    place = folder / "checkpoints" / f"step-{step:08d}"
    place.mkdir(parents=True)
    state = json.dumps({"progress": {"step": step}, **state}).encode()
    (place / "state.json").write_bytes(state)
    fingerprint = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    (place / "manifest.json").write_text(
        json.dumps({"format": 1, "files": {"state.json": fingerprint}})
    )


def start_run(parent, status_word=None, step=10):
    """Make a run with one checkpoint, and with summary.json if it has a status."""
    folder, _ = choose(parent)
    write_config(folder, CONFIG, {"ranks": 2})
    if step:
        write_checkpoint(folder, step)
    if status_word:
        (folder / "summary.json").write_text(json.dumps({"status": status_word}))
    return folder


def test_the_first_run_has_number_1(tmp_path):
    parent = tmp_path / "not" / "there"
    assert choose(parent) == (parent / "demo-001", None)
    assert (parent / "demo-001").is_dir()


def test_an_unfinished_run_resumes(tmp_path):
    for word in (None, "stopped", "failed"):
        folder = start_run(tmp_path / str(word), word)
        again, checkpoint = choose(tmp_path / str(word))
        assert again == folder
        assert checkpoint.state["progress"]["step"] == 10


def test_a_run_after_a_finished_one_gets_the_next_number(tmp_path):
    start_run(tmp_path, "finished")
    assert choose(tmp_path) == (tmp_path / "demo-002", None)
    write_checkpoint(tmp_path / "demo-002", 5)
    write_config(tmp_path / "demo-002", CONFIG, {})
    folder, checkpoint = choose(tmp_path)
    assert folder == tmp_path / "demo-002" and checkpoint.state["progress"]["step"] == 5


def test_folders_of_other_names_are_ignored(tmp_path):
    for name in ("demo-x-004", "demo-4", "demo-005.bak", "other-007"):
        (tmp_path / name).mkdir()
    assert choose(tmp_path)[0] == tmp_path / "demo-001"
    (tmp_path / "a.b-002").mkdir()
    (tmp_path / "axb-009").mkdir()
    assert choose(tmp_path, name="a.b", resume=False)[0] == tmp_path / "a.b-003"


def test_numbers_may_exceed_three_digits(tmp_path):
    for number in ("998", "999", "1000"):
        (tmp_path / f"demo-{number}").mkdir()
    assert choose(tmp_path, resume=False)[0] == tmp_path / "demo-1001"


def test_resume_false_starts_a_new_run(tmp_path):
    start_run(tmp_path)
    assert choose(tmp_path, resume=False) == (tmp_path / "demo-002", None)


def test_a_changed_configuration_is_refused_with_the_differences(tmp_path):
    folder = start_run(tmp_path)
    changed = {"optim": {"lr": 0.2}, "run": {"seed": 3}}
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path, changed)
    assert str(caught.value) == (
        f"{folder}: the configuration must be that of the unfinished run, got the changes "
        "(optim.lr: 0.1 -> 0.2; run.seed: 1 -> 3); restore the values of the run, or start a new "
        "run with run.resume=false"
    )
    assert choose(tmp_path, changed, resume=False)[0] == tmp_path / "demo-002"


def test_a_run_without_a_checkpoint_starts_again_in_its_folder(tmp_path):
    folder = start_run(tmp_path, step=None)
    assert choose(tmp_path, {"optim": {"lr": 0.5}, "run": {"seed": 1}}) == (folder, None)


def test_an_incomplete_checkpoint_is_removed(tmp_path):
    folder = start_run(tmp_path)
    aside = folder / "checkpoints" / ".aside-step-00000020"
    aside.mkdir()
    (aside / "net.params").write_bytes(b"part")
    assert choose(tmp_path)[1].state["progress"]["step"] == 10
    assert not aside.exists()


@pytest.mark.parametrize("text", ["{ broken", "", "- 1", "optim: 3"])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    folder = start_run(tmp_path)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path)
    assert str(caught.value) == (
        f"{folder / 'config.yaml'}: is damaged, got {text!r}; restore the file, or start a new "
        "run with run.resume=false"
    )
    assert choose(tmp_path, resume=False) == (tmp_path / "demo-002", None)


def test_a_missing_configuration_is_refused(tmp_path):
    folder = start_run(tmp_path)
    (folder / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match="the file is missing, got a run with checkpoints; re"):
        choose(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "summary.json"])
def test_an_unreadable_file_is_not_missing(tmp_path, name):
    folder = start_run(tmp_path, "stopped")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path)
    assert str(caught.value) == (
        f"{folder / name}: cannot be read, got Is a directory (errno 21); nothing was changed, "
        "run the same command again when the file is readable"
    )


def damage(folder):
    """Change one bit of a checkpoint."""
    state = folder / "state.json"
    content = bytearray(state.read_bytes())
    content[5] ^= 1
    state.write_bytes(content)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    folder = start_run(tmp_path, step=10)
    write_checkpoint(folder, 20)
    for step in (10, 20):
        damage(folder / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path)
    newest = folder / "checkpoints" / "step-00000020" / "state.json"
    assert str(caught.value) == (
        f"{folder / 'checkpoints'}: no checkpoint is valid, got 2 damaged checkpoints (fault of "
        f"the newest: {newest}: has changed since it was saved, got a size or SHA-256 that "
        "differs from manifest.json); restore a checkpoint from a backup, or start a new run "
        "with run.resume=false"
    )
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "step-00000010",
        "step-00000020",
    ]
    assert choose(tmp_path, resume=False) == (tmp_path / "demo-002", None)


def test_a_damaged_newest_checkpoint_is_skipped_with_a_notice(tmp_path):
    folder = start_run(tmp_path, step=10)
    write_checkpoint(folder, 20)
    damage(folder / "checkpoints" / "step-00000020")
    run = choose_run(tmp_path, "demo", resume=True, config=CONFIG, differences=differences)
    run.lock.release()
    assert run.checkpoint.state["progress"]["step"] == 10
    assert run.notices == (
        "skipped a damaged checkpoint: "
        f"{folder / 'checkpoints' / 'step-00000020' / 'state.json'}: has changed since it was "
        "saved, got a size or SHA-256 that differs from manifest.json",
    )


def test_a_read_error_is_not_damage(tmp_path, monkeypatch):
    folder = start_run(tmp_path, step=10)
    write_checkpoint(folder, 20)
    original = Path.open

    def failing(path, *arguments, **options):
        if path.parent.name == "step-00000020":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path)
    assert str(caught.value) == (
        f"{folder / 'checkpoints' / 'step-00000020' / 'manifest.json'}: cannot be read, got "
        "Input/output error (errno 5); nothing was changed, run the same command again when the "
        "file is readable, or start a new run with run.resume=false"
    )
    monkeypatch.undo()
    assert choose(tmp_path)[1].state["progress"]["step"] == 20


DATA = {"images": 120, "people": 12, "crc_keys": 1, "crc_labels": 2}


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ({"images": 110, "crc_keys": 3}, "images: 120 -> 110"),
        ({"images": 130, "people": 13, "crc_labels": 5}, "images: 120 -> 130; people: 12 -> 13"),
        ({"crc_labels": 5}, "different labels"),
    ],
    ids=["fewer images", "more people", "other labels"],
)
def test_other_data_is_refused_with_the_difference(tmp_path, now, difference):
    folder = start_run(tmp_path, step=None)
    write_checkpoint(folder, 10, data=DATA)
    assert choose(tmp_path, data=dict(DATA))[1].state["data"] == DATA
    with pytest.raises(RunFolderError) as caught:
        choose(tmp_path, data={**DATA, **now})
    assert str(caught.value) == (
        f"{folder}: the unfinished run was trained on different data, got the changes "
        f"({difference}); restore the data, or start a new run with run.resume=false "
        f"(train.pretrained={folder} keeps the weights)"
    )
    assert choose(tmp_path, data={**DATA, **now}, resume=False)[0] == tmp_path / "demo-002"


def test_a_checkpoint_without_a_fingerprint_is_used(tmp_path):
    start_run(tmp_path)
    assert choose(tmp_path, data=DATA)[1].state["progress"]["step"] == 10


def test_a_folder_that_another_process_has_just_created_is_resumed(tmp_path, monkeypatch):
    made = Path.mkdir

    def slower(path, *arguments, **options):
        if path.name == "demo-001" and not path.exists():
            made(path)
            write_checkpoint(path, 10)
            write_config(path, CONFIG, {})
        return made(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", slower)
    folder, checkpoint = choose(tmp_path)
    assert folder == tmp_path / "demo-001" and checkpoint.state["progress"]["step"] == 10


def test_an_unwritable_parent_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for parent, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "runs", "Not")):
        with pytest.raises(RunFolderError) as caught:
            choose(parent)
        assert str(caught.value).startswith(
            f"{parent}: the run folder cannot be written, got {reason}"
        )
        assert str(caught.value).endswith("; choose another folder with run.dir=FOLDER")


def test_a_run_that_finishes_before_its_lock_is_not_resumed(tmp_path, monkeypatch):
    folder = start_run(tmp_path)

    def finish_first(place):
        if place == folder:
            (folder / "summary.json").write_text('{"status": "finished"}')
        return RunLock(place)

    monkeypatch.setattr("training.run_folder.RunLock", finish_first)
    assert choose(tmp_path) == (tmp_path / "demo-002", None)


@pytest.mark.parametrize("function", ["mkdir", "lock"])
def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch, function):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if function == "lock":
        monkeypatch.setattr("training.run_folder.RunLock", fail)
    else:
        mkdir = Path.mkdir

        def make(path, *arguments, **options):
            return (fail if path.name == "demo-001" else mkdir)(path, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", make)
    with pytest.raises(RunFolderError, match="cannot be written, got No space left on device; "):
        choose(tmp_path)


def test_only_an_unfinished_run_with_a_checkpoint_has_a_configuration_to_resume(tmp_path):
    assert unfinished_config(tmp_path / "none", "demo") is None
    start_run(tmp_path / "empty", step=0)
    assert unfinished_config(tmp_path / "empty", "demo") is None
    start_run(tmp_path / "over", "finished")
    assert unfinished_config(tmp_path / "over", "demo") is None
    start_run(tmp_path / "stopped", "stopped")
    assert unfinished_config(tmp_path / "stopped", "demo")["optim"] == CONFIG["optim"]


def test_classes_json_states_the_file_and_the_label_of_each_class(tmp_path):
    write_classes(tmp_path, [Path("a.rec"), Path("b.rec")], np.array([[0, 7], [1, 2]]))
    assert json.loads((tmp_path / "classes.json").read_text()) == {
        "records": ["a.rec", "b.rec"], "record": [0, 1], "label": [7, 2]
    }  # fmt: skip


def test_config_yaml_has_the_configuration_and_the_notes(tmp_path):
    write_config(tmp_path, CONFIG, {"commit": "abc"})
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved == {**CONFIG, "notes": {"commit": "abc"}}
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(RunFolderError, match="cannot be written, got No such file"):
        write_config(tmp_path / "none", CONFIG, {})


def test_a_run_without_a_summary_is_unfinished(tmp_path):
    assert status(tmp_path) == "unfinished"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"steps": 3}'])
def test_a_damaged_summary_is_refused(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RunFolderError) as caught:
        status(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'summary.json'}: is damaged, got {text!r}; remove the file to resume "
        "the run, or "
        "start a new run with run.resume=false"
    )


@pytest.mark.parametrize(
    "text",
    [
        "? [a, b]\n: 1\n",  # an unhashable key
        "1: {a: 1}\n",
        "optim: [1]\n",
        "[" * 20_000,
        "run: {seed: " + "9" * 5000 + "}\n",
        "a: &a [x]\nb: &b [" + "*a, " * 9000 + "]\nc: [*b, *b, *b]\n",
        "optim: !!python/object:os.system {}\n",
        "\0",
    ],
    ids=range(8),
)
def test_a_damaged_configuration_of_any_kind_is_one_sentence(tmp_path, text):
    folder = start_run(tmp_path)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match=r"config\.yaml: is damaged, got .*; restore the file"):
        choose(tmp_path)


@pytest.mark.parametrize(
    "section", ["{1: 2, a: 3}", "{lr: [1, {b: 2}]}", "{null: 1}", "{lr: .nan}"]
)
def test_values_of_other_types_are_reported_as_changes(tmp_path, section):
    from launch.config.configuration import differences as real_differences

    folder = start_run(tmp_path)
    (folder / "config.yaml").write_text(f"optim: {section}\nrun: {{seed: 1}}\n")
    with pytest.raises(RunFolderError, match=r"got the changes \(optim\.") as caught:
        choose_run(tmp_path, "demo", resume=True, config=CONFIG, differences=real_differences)
    assert "\n" not in str(caught.value)


def test_an_unreadable_configuration_begins_no_new_folder(tmp_path, monkeypatch):
    folder = start_run(tmp_path)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()  # reading fails, also for root
    with pytest.raises(RunFolderError, match=r"config\.yaml: cannot be read, got Is a directory"):
        choose(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]

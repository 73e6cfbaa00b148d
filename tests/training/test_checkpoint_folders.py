# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: verification, the newest one, removal of old ones.

The folders hold small text files; test_checkpoint.py has real checkpoints.
"""

from __future__ import annotations

import json
import os

import pytest

from training import checkpoint_folders as files
from training.checkpoint_folders import (
    DamagedCheckpoint,
    UnreadableCheckpoint,
    find_newest,
    fingerprint,
    put_in_place,
    remove_old,
    remove_unfinished,
    step_folders,
    verify,
)


def write(folder, text="weights"):
    """Write a valid checkpoint of two files."""
    folder.mkdir(parents=True)
    (folder / "net.params").write_text(text)
    (folder / files.STATE).write_text(json.dumps({"text": text}))
    fingerprints = {name: fingerprint(folder / name) for name in ("net.params", files.STATE)}
    (folder / files.MANIFEST).write_text(
        json.dumps({"format": files.FORMAT, "files": fingerprints})
    )
    return folder


def damage(folder):
    (folder / "net.params").write_text("WEIGHTS")


def names(parent):
    return sorted(path.name for path in parent.iterdir())


def test_folders_are_sorted_by_step(tmp_path):
    for name in ("step-00000200", "step-00000030", "step-100000000", "step-7", "other"):
        (tmp_path / name).mkdir()
    found = [path.name for path in step_folders(tmp_path)]
    assert found == ["step-00000030", "step-00000200", "step-100000000"]
    assert step_folders(tmp_path / "nothing") == []


def test_a_valid_checkpoint_has_its_state(tmp_path):
    folder = write(tmp_path / "step-00000001")
    assert verify(folder) == {"text": "weights"}
    assert find_newest(tmp_path).folder == folder


@pytest.mark.parametrize("name", ["net.params", files.STATE, files.MANIFEST])
def test_a_missing_file_is_damage(tmp_path, name):
    folder = write(tmp_path / "step-00000001")
    (folder / name).unlink()
    with pytest.raises(DamagedCheckpoint, match=rf"{name}: is missing.*; use another checkpoint"):
        verify(folder)


def test_a_changed_file_is_damage(tmp_path):
    damage(folder := write(tmp_path / "step-00000001"))
    with pytest.raises(DamagedCheckpoint, match=r"net\.params: has changed since it was saved"):
        verify(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}}', '{"files": 3}'])
def test_an_invalid_manifest_is_damage(tmp_path, text):
    folder = write(tmp_path / "step-00000001")
    (folder / files.MANIFEST).write_text(text)
    with pytest.raises(DamagedCheckpoint, match=r"manifest\.json: is damaged, got "):
        verify(folder)


def test_a_read_error_is_not_damage(tmp_path):
    folder = write(tmp_path / "step-00000001")
    (folder / "net.params").unlink()
    (folder / "net.params").mkdir()
    with pytest.raises(UnreadableCheckpoint, match="cannot be read, got Is a directory"):
        find_newest(tmp_path)


def test_the_newest_valid_checkpoint_comes_with_newer_damage(tmp_path):
    older, newer = write(tmp_path / "step-00000001", "a"), write(tmp_path / "step-00000002", "b")
    damage(newer)
    found = find_newest(tmp_path)
    assert (found.folder, found.state) == (older, {"text": "a"})
    assert len(found.damaged) == 1 and found.damaged[0].startswith(f"{newer / 'net.params'}: ")
    damage(older)
    assert find_newest(tmp_path).folder is None and len(find_newest(tmp_path).damaged) == 2


def test_damaged_checkpoints_never_displace_valid_ones(tmp_path):
    for step in range(1, 6):
        write(tmp_path / f"step-{step:08d}")
    damage(tmp_path / "step-00000005")
    remove_old(tmp_path, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000004", "step-00000005"]


def test_a_checkpoint_replaces_another_of_its_step(tmp_path):
    folder = write(tmp_path / "step-00000001", "old")
    put_in_place(write(tmp_path / ".aside-step-00000001", "new"), folder)
    assert verify(folder) == {"text": "new"} and names(tmp_path) == ["step-00000001"]


def test_folders_of_a_killed_run_are_removed_or_restored(tmp_path):
    write(tmp_path / ".aside-step-00000003")  # maybe incomplete
    write(tmp_path / ".aside-old-step-00000001", "restored")  # killed between the two renames
    write(tmp_path / "step-00000002", "new")
    write(tmp_path / ".aside-old-step-00000002", "old")  # killed after both renames
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert verify(tmp_path / "step-00000001") == {"text": "restored"}
    assert verify(tmp_path / "step-00000002") == {"text": "new"}


@pytest.mark.parametrize("found", [0, 2, "1", None, [1], True])
def test_a_checkpoint_of_another_format_is_refused_and_kept(tmp_path, found):
    folder = write(tmp_path / "step-00000001")
    manifest = json.loads((folder / files.MANIFEST).read_text())
    (folder / files.MANIFEST).write_text(json.dumps({**manifest, "format": found}))
    with pytest.raises(UnreadableCheckpoint, match=r"another format .* \(1\), got .*; nothing was"):
        find_newest(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\0b"])
def test_a_manifest_names_only_files_of_its_folder(tmp_path, name):
    folder = write(tmp_path / "step-00000001")
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"][name] = {}
    (folder / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpoint, match="is no plain file name; use another checkpoint"):
        verify(folder)


@pytest.mark.parametrize("name", ["net.params", files.STATE, files.MANIFEST])
def test_a_special_file_is_damage(tmp_path, name):
    folder = write(tmp_path / "step-00000001")
    (folder / name).unlink()
    os.mkfifo(folder / name)  # opening it for reading would wait for a writer
    with pytest.raises(DamagedCheckpoint, match="got a special file"):
        verify(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[1]", '"x"', "{", ""], ids=range(6))
def test_a_state_that_is_no_json_object_is_damage(tmp_path, text):
    folder = write(tmp_path / "step-00000001")
    (folder / files.STATE).write_text(text)
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"][files.STATE] = fingerprint(folder / files.STATE)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpoint, match=r"state\.json: is damaged, got "):
        verify(folder)

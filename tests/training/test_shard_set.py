# SPDX-License-Identifier: Apache-2.0
"""Shards of a checkpoint: a missing, damaged or foreign one is refused by its name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.training.sharded_model import class_values, make_model, save
from training.checkpoint import CheckpointError, latest_checkpoint, open_checkpoint
from training.checkpoint_files import ShardError
from training.shard_set import find_shards

SECOND = "fc7-00001-of-00003.params"


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "run", 7, 3)


def refuse(folder, text):
    """Assert that opening or verifying the checkpoint names the second shard and says ``text``."""
    with pytest.raises(ShardError) as error:
        open_checkpoint(folder).shards.verify()
    assert str(error.value).startswith(f"{folder / SECOND}: ") and text in str(error.value)
    assert "restore the file from a backup" in str(error.value)


def test_the_set_has_the_rows_of_all_classes(folder):
    shards = find_shards(folder)
    assert np.array_equal(shards.parameters()["weight"], class_values(7))
    assert np.array_equal(shards.momentum()["head.weight"], class_values(7, seed=2))
    assert (shards.run, shards.step, shards.num_classes) == ("0123abcd", 20, 7)
    shards.verify()


def test_a_missing_shard_is_refused(folder):
    (folder / SECOND).unlink()
    refuse(folder, "the shard is missing, got no such file")


@pytest.mark.parametrize("position", [0, 30, 300, -60, -1])
def test_a_changed_byte_is_refused(folder, position):
    content = bytearray((folder / SECOND).read_bytes())
    content[position] ^= 1
    (folder / SECOND).write_bytes(content)
    refuse(folder, "the shard ")


def test_a_truncated_or_longer_shard_is_refused(folder):
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[:-3])
    refuse(folder, "the shard is damaged")
    (folder / SECOND).write_bytes(content + b"x")
    refuse(folder, "the shard is damaged")


def test_a_shard_of_another_run_is_refused(folder, tmp_path):
    other = save(tmp_path / "other", 7, 3, run="other")
    shutil.copy(other / SECOND, folder / SECOND)
    refuse(folder, "must be of the run 0123abcd, got a shard of the run other")


def test_a_shard_of_another_step_is_refused(folder, tmp_path):
    other = save(tmp_path / "other", 7, 3, step=30)
    shutil.copy(other / SECOND, folder / SECOND)
    refuse(folder, "must be of step 20, got a shard of step 30")


def test_a_shard_of_another_place_is_refused(folder, tmp_path):
    shutil.copy(folder / "fc7-00000-of-00003.params", folder / SECOND)
    refuse(folder, "must be number 1 of 3 with the classes 3 to 5 of 7, got number 0 of 3")


def test_a_shard_of_another_save_of_the_same_step_is_refused(folder, tmp_path):
    other = save(tmp_path / "other", 7, 3, own_momentum=False, bias=True)
    shutil.copy(other / SECOND, folder / SECOND)
    refuse(folder, "the shard ")


def test_no_older_checkpoint_replaces_one_with_a_bad_shard(folder):
    newer = save(folder.parent, 7, 3, step=30)
    (newer / SECOND).unlink()
    with pytest.raises(ShardError, match=f"step-00000030/{SECOND}: the shard is missing"):
        latest_checkpoint(folder.parent)
    shutil.move(newer, folder.parent.parent / "moved away")
    assert latest_checkpoint(folder.parent).folder == folder


def test_the_ranks_share_the_verification(folder):
    content = bytearray((folder / SECOND).read_bytes())
    content[-80] ^= 1
    (folder / SECOND).write_bytes(content)
    shards = find_shards(folder)
    shards.verify(0, 2)  # shards 0 and 2
    with pytest.raises(ShardError, match=f"{SECOND}: the shard is damaged, got a size or SHA-256"):
        shards.verify(1, 2)


@pytest.mark.parametrize("change", [{"files": 3}, {"files": []}, {"step": "x"}, {"num_classes": 9}])
def test_a_damaged_section_of_the_manifest_is_refused(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"is damaged|must be number 0 of 3"):
        open_checkpoint(folder)


@pytest.mark.parametrize("num_classes", [6, 8, 14])
def test_another_number_of_classes_is_refused(folder, num_classes):
    for size in (1, 2):
        model = make_model(num_classes, 0, size)
        with pytest.raises(
            CheckpointError, match="does not fit this head, whose parameter 'weight'"
        ):
            open_checkpoint(folder).load_head_parameters(model.head)

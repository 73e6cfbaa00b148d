# SPDX-License-Identifier: Apache-2.0
"""Errors and fingerprints of the files of a checkpoint."""

from __future__ import annotations

import hashlib
import os

import pytest

from training import checkpoint_files as files


def test_a_fingerprint_is_size_and_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert files.fingerprint(tmp_path / "a") == {"bytes": len(content), "sha256": digest}


@pytest.mark.parametrize("read", [files.fingerprint, files.read_json])
def test_a_missing_file_is_damage_and_an_unreadable_one_is_not(tmp_path, read):
    with pytest.raises(files.DamagedCheckpoint, match="a: is missing, got No such file") as error:
        read(tmp_path / "a")
    assert str(error.value) == f"{error.value.fault}; use another checkpoint"
    with pytest.raises(files.UnreadableCheckpoint, match=r"cannot be read, got Is a directory"):
        read(tmp_path)


def test_json_is_on_the_disk(tmp_path):
    files.write_json(tmp_path / "a.json", {"step": 3})
    assert files.read_json(tmp_path / "a.json") == {"step": 3}


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("[1]", "a JSON list"),
        ("{", "JSONDecodeError Expecting property name"),
        ("[" * 100_000, "RecursionError maximum recursion depth"),
    ],
)
def test_other_content_than_a_json_object_is_damage(tmp_path, content, got):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(files.DamagedCheckpoint, match=f"a.json: is damaged, got {got}"):
        files.read_json(tmp_path / "a.json")


def test_a_named_pipe_is_damage_and_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a")
    for read in (files.fingerprint, files.read_json):
        with pytest.raises(files.DamagedCheckpoint, match="a: is damaged, got a special file"):
            read(tmp_path / "a")


def test_a_bad_shard_is_no_damage_that_an_older_checkpoint_replaces():
    assert issubclass(files.ShardError, files.CheckpointError)
    assert not issubclass(files.ShardError, files.DamagedCheckpoint)

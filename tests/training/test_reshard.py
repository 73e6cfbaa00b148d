# SPDX-License-Identifier: Apache-2.0
"""Another number of shards: the same rows, bit for bit."""

from __future__ import annotations

import json
import os
import tracemalloc

import mxnet as mx
import numpy as np
import pytest

from heads import build_head
from tests.training.sharded_model import class_values, load, make_model, on_ranks, save
from tests.training.test_model_arrays import save_undistributed
from training import reshard as module
from training import stored_rows
from training.checkpoint import CheckpointError, open_checkpoint, save_checkpoint
from training.reshard import reshard
from training.step import Model, collect_parameters


def files(folder):
    """Return the contents of all files of a checkpoint except state.json and manifest.json."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".params"}


def test_8_shards_become_3_bit_for_bit(tmp_path):
    eight, three = save(tmp_path / "8", 29, 8), save(tmp_path / "3", 29, 3)
    assert reshard(open_checkpoint(eight), tmp_path / "out", 3) == 29
    found, expected = files(tmp_path / "out"), files(three)
    assert found.keys() == expected.keys()
    shards = [name for name in expected if name.startswith("fc7")]
    assert len(shards) == 3
    assert {name: found[name] for name in shards} == {name: expected[name] for name in shards}
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (tmp_path / "out", three)]
    assert manifests[0]["shards"] == manifests[1]["shards"]


@pytest.mark.parametrize("num_classes", [1, 2, 29])
def test_gathered_and_split_shards_are_those_of_before(tmp_path, num_classes):
    eight = save(tmp_path / "8", num_classes, 8, per_class=2, bias=True)
    reshard(open_checkpoint(eight), tmp_path / "one", 1)
    reshard(open_checkpoint(tmp_path / "one"), tmp_path / "back", 8)
    found, expected = files(tmp_path / "back"), files(eight)
    assert {n for n in found if found[n] != expected[n]} <= {"head.params", "momentum.params"}
    arrays = mx.nd.load(str(tmp_path / "one" / "fc7.params"))
    assert np.array_equal(arrays["fc7_weight"].asnumpy(), class_values(num_classes, 2))
    assert np.array_equal(
        arrays["fc7_weight_momentum"].asnumpy(), class_values(num_classes, 2, seed=2)
    )
    assert mx.nd.load(str(tmp_path / "back" / "head.params"))["t"].asscalar() == 0.25
    state = json.loads((eight / "state.json").read_text())
    assert json.loads((tmp_path / "back" / "state.json").read_text()) == state


def test_a_run_resumes_from_the_new_shards(tmp_path):
    eight = save(tmp_path, 29, 8)
    reshard(open_checkpoint(eight), tmp_path / "three", 3)
    heads = on_ranks(2, lambda comm: load(tmp_path / "three", make_model(29, comm.rank, 2)).head)
    rows = np.concatenate([head.weight.data().asnumpy() for head in heads])
    assert np.array_equal(rows, class_values(29)) and heads[1].sampler["draws"] == 20


def test_an_old_checkpoint_is_divided(tmp_path):
    old = save_undistributed(tmp_path, 7)
    reshard(open_checkpoint(old), tmp_path / "two", 2)
    checkpoint = open_checkpoint(tmp_path / "two")
    assert np.array_equal(checkpoint.stored_head()["weight"], class_values(7))
    assert np.array_equal(checkpoint.shards.momentum()["head.weight"], class_values(7, seed=2))
    assert "head.weight" not in checkpoint.stored("momentum.params")
    assert len(checkpoint.run_id) == 32  # a checkpoint without a run gets an identifier


def test_a_damaged_shard_stops_the_copy(tmp_path):
    eight = save(tmp_path, 29, 8)
    path = eight / "fc7-00005-of-00008.params"
    content = bytearray(path.read_bytes())
    content[-150] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="fc7-00005-of-00008.params: the shard is damaged"):
        reshard(open_checkpoint(eight), tmp_path / "out", 3)
    assert [p.name for p in tmp_path.iterdir()] == [eight.name]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    source = open_checkpoint(save(tmp_path, 29, 8))
    monkeypatch.setattr(module, "write_shard", full)
    with pytest.raises(CheckpointError, match="out: .* cannot be written, got No space left on de"):
        reshard(source, tmp_path / "out", 3)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_an_impossible_number_of_shards_is_refused(tmp_path, size):
    source = open_checkpoint(save(tmp_path, 5, 2))
    with pytest.raises(CheckpointError, match=f"must be from 1 to 99,999, got {size}"):
        reshard(source, tmp_path / "out", size)


def test_an_existing_folder_and_a_missing_parent_are_refused(tmp_path):
    source = open_checkpoint(save(tmp_path, 5, 2))
    (tmp_path / "there").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    for name in ("there", "link"):
        with pytest.raises(CheckpointError, match="must not exist, got an existing path"):
            reshard(source, tmp_path / name, 1)
    with pytest.raises(CheckpointError, match="must exist, got no such folder; create it"):
        reshard(source, tmp_path / "absent" / "out", 1)


def test_a_head_without_class_centres_is_refused(tmp_path):
    model = make_model(5, distributed=False)
    head = build_head("triplet", 5, 3)
    head.initialize()
    model = Model(model.net, head, model.trainer, collect_parameters(model.net, head))
    state = {"progress": {"step": 1}}
    folder = save_checkpoint(tmp_path, 1, model, state=state, keep=1)
    with pytest.raises(CheckpointError, match="must contain class centres, got a head with the"):
        reshard(open_checkpoint(folder), tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def test_rows_that_do_not_fit_the_number_of_classes_are_refused(tmp_path):
    folder = save_undistributed(tmp_path, 7)
    source = open_checkpoint(folder)
    source.state["meta"]["num_classes"] = 3
    with pytest.raises(CheckpointError, match=r"multiple of the number of classes \(3\), got 7"):
        reshard(source, tmp_path / "out", 2)


def test_memory_does_not_grow_with_the_number_of_classes(tmp_path, monkeypatch):
    folder = save(tmp_path, 400_000, 2)  # 4.6 MiB of centres, and the same of momentum
    monkeypatch.setattr(stored_rows, "BLOCK_BYTES", 1 << 18)
    tracemalloc.start()
    try:
        reshard(open_checkpoint(folder), tmp_path / "out", 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20  # pieces of 1 MiB, for the SHA-256

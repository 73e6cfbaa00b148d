# SPDX-License-Identifier: Apache-2.0
"""Shards are saved by all ranks together: all of them, or no checkpoint at all."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from tests.training.sharded_model import (
    RUN,
    centres_and_momentum,
    class_values,
    fill,
    load,
    make_model,
    on_ranks,
    save,
)
from training import save_shards, stored_rows
from training.checkpoint import CheckpointError, open_checkpoint, save_checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_rank_writes_its_rows_and_the_manifest_names_all_shards(tmp_path):
    folder = save(tmp_path, 7, 3)
    shards = [f"fc7-{rank:05d}-of-00003.params" for rank in range(3)]
    others = ["head.params", "manifest.json", "momentum.params", "net.params", "state.json"]
    assert names(folder) == [*shards, *others] and names(tmp_path) == ["step-00000020"]
    section = json.loads((folder / "manifest.json").read_text())["shards"]
    assert [entry["name"] for entry in section["files"]] == shards
    assert (section["run"], section["step"], section["num_classes"]) == (RUN, 20, 7)
    rows = [mx.nd.load(str(folder / name))["fc7_weight"].asnumpy() for name in shards]
    assert [len(block) for block in rows] == [3, 2, 2]
    assert np.array_equal(np.concatenate(rows), class_values(7))
    assert mx.nd.load(str(folder / "head.params")).keys() == {"t"}


@pytest.mark.parametrize("own_momentum", [True, False])
@pytest.mark.parametrize(("num_classes", "before", "after"), [(7, 3, 2), (7, 1, 4), (2, 4, 3)])
def test_another_number_of_ranks_reads_the_same_rows(
    tmp_path, num_classes, before, after, own_momentum
):
    folder = save(tmp_path, num_classes, before, own_momentum=own_momentum)
    models = [
        load(folder, make_model(num_classes, rank, after, own_momentum=own_momentum))
        for rank in range(after)
    ]
    parts = [centres_and_momentum(model) for model in models]
    for seed, arrays in zip((1, 2), zip(*parts)):
        assert np.array_equal(np.concatenate(arrays), class_values(num_classes, seed=seed))
    for model in models:
        assert model.head.sampler == {"seed": 7, "draws": 20}
        assert model.head.t.data().asscalar() == 0.25
        assert model.net.weight.data().asnumpy().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_several_centres_per_class_and_a_bias_are_divided_by_class(tmp_path):
    save_options = {"per_class": 2}
    folder = save(tmp_path, 5, 3, **save_options)
    parts = [
        centres_and_momentum(load(folder, make_model(5, rank, 2, **save_options)))[0]
        for rank in range(2)
    ]
    assert [len(part) for part in parts] == [6, 4]
    assert np.array_equal(np.concatenate(parts), class_values(5, 2))
    folder = save(tmp_path, 5, 3, step=21, bias=True)
    parts = [load(folder, make_model(5, rank, 2, bias=True)).head.bias for rank in range(2)]
    found = np.concatenate([part.data().asnumpy() for part in parts])
    assert np.array_equal(found, class_values(5)[:, 0])


def test_a_rank_without_momentum_saves_zeros(tmp_path):
    def work(comm):
        model = make_model(4, comm.rank, comm.size)
        fill(model, 4)
        if comm.rank:
            model.head.momentum = {}
        state = {"run": RUN, "progress": {"step": 1}}
        return save_checkpoint(tmp_path, 1, model, state=state, keep=1, comm=comm)

    folder = on_ranks(2, work)[0]
    momentum = centres_and_momentum(load(folder, make_model(4)))[1]
    assert np.array_equal(momentum[:2], class_values(4, seed=2)[:2])
    assert not momentum[2:].any()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_cannot_write_leaves_no_checkpoint(tmp_path, monkeypatch, failing):
    save(tmp_path, 7, 3)
    original = save_shards.write_shard

    def fail(folder, header, arrays):
        if header.rank == failing:
            raise OSError(28, "No space left on device")
        return original(folder, header, arrays)

    monkeypatch.setattr(save_shards, "write_shard", fail)

    def work(comm):
        model = make_model(7, comm.rank, comm.size)
        fill(model, 7)
        state = {"run": RUN, "progress": {"step": 40}}
        return save_checkpoint(tmp_path, 40, model, state=state, keep=1, comm=comm)

    results = on_ranks(3, work)
    assert names(tmp_path) == ["step-00000020"]
    for rank, result in enumerate(results):
        assert isinstance(result, CheckpointError) == (rank == failing)
    text = "step-00000040: the checkpoint cannot be written, got No space left on device; the last "
    assert text in str(results[failing])
    open_checkpoint(tmp_path / "step-00000020").shards.verify()


def test_a_shard_that_rank_0_cannot_see_is_reported(tmp_path, monkeypatch):
    original = save_shards.write_shard

    def write_elsewhere(folder, header, arrays):
        entry = original(folder, header, arrays)
        if header.rank == 1:
            (folder / entry["name"]).unlink()
        return entry

    monkeypatch.setattr(save_shards, "write_shard", write_elsewhere)
    with pytest.raises(CheckpointError, match="rank 1 has written .* storage that all hosts share"):
        save(tmp_path, 7, 2)
    assert names(tmp_path) == []


def test_saving_and_loading_need_memory_for_one_block_only(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_rows, "BLOCK_BYTES", 24)  # two rows
    blocks = []
    original = stored_rows.StoredRows.read

    def read(self, start, stop):
        if self.dtype == np.float32:
            blocks.append(stop - start)
        return original(self, start, stop)

    monkeypatch.setattr(stored_rows.StoredRows, "read", read)
    folder = save(tmp_path, 31, 2)
    model = load(folder, make_model(31, 1, 3))
    assert max(blocks) == 3  # the net's bias, of 3 numbers
    assert np.array_equal(centres_and_momentum(model)[0], class_values(31)[11:21])

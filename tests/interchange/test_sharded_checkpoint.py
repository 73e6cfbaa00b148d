# SPDX-License-Identifier: Apache-2.0
"""Sharded checkpoints as stored models: class centres stay on the disk until they are read."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from assemble.class_centres import find_match, load_head
from heads import build_head
from interchange.read_checkpoint import read_checkpoint
from interchange.write_checkpoint import write_checkpoint
from interchange.write_symbol import find_centres
from nets import build_net
from tests.runs import TINY
from tests.training.sharded_model import EMBEDDING_SIZE, class_values, fill, make_model, on_ranks
from training.checkpoint import CheckpointError, open_checkpoint, save_checkpoint
from training.step import Model, collect_parameters
from training.stored_rows import StoredRows

NET = {**TINY, "embedding_size": EMBEDDING_SIZE}


@pytest.fixture
def folder(tmp_path):
    """Return a checkpoint of a real net, with the class centres of 7 classes in 3 shards."""
    net = build_net(image_size=(32, 32), **NET)
    net.initialize(mx.init.Xavier())
    state = {
        "progress": {"step": 20},
        "run": "a run",
        "meta": {"net": NET, "image_size": [32, 32], "num_classes": 7},
    }

    def work(comm):
        made = make_model(7, comm.rank, comm.size)
        fill(made, 7)
        model = Model(net, made.head, made.trainer, collect_parameters(net, made.head))
        return save_checkpoint(tmp_path, 20, model, state=state, keep=1, comm=comm)

    return on_ranks(3, work)[0]


def damage(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-150] ^= 1
    (folder / name).write_bytes(content)


def test_the_head_is_on_the_disk_until_it_is_read(folder):
    model = read_checkpoint(folder)
    assert isinstance(model.head["weight"], StoredRows) and model.head["weight"].shape == (7, 3)
    assert np.array_equal(find_centres(model), class_values(7))
    assert model.head["t"].tolist() == [0.25]


def test_a_damaged_shard_is_refused_when_it_is_read_and_not_before(folder):
    name = "fc7-00002-of-00003.params"
    damage(folder, name)
    model = read_checkpoint(folder)
    assert model.parameters
    with pytest.raises(CheckpointError, match=f"{name}: the shard is damaged"):
        find_centres(model)


def test_a_model_is_written_as_a_checkpoint_with_one_shard(folder, tmp_path):
    out = tmp_path / "out"
    write_checkpoint(read_checkpoint(folder), out)
    assert sorted(p.name for p in out.glob("*.params")) == [
        *("fc7.params", "head.params", "momentum.params", "net.params"),
    ]
    written = read_checkpoint(out)
    assert np.array_equal(written.head["weight"], class_values(7))
    assert json.loads((out / "manifest.json").read_text())["shards"]["num_classes"] == 7
    head = build_head("cosface", 7, EMBEDDING_SIZE)
    head.initialize()
    with pytest.raises(CheckpointError, match="parameter 't', which this head lacks"):
        open_checkpoint(out).load_head_parameters(head)


def test_a_damaged_shard_leaves_no_written_checkpoint(folder, tmp_path):
    damage(folder, "fc7-00000-of-00003.params")
    with pytest.raises(CheckpointError, match="fc7-00000-of-00003.params: the shard is damaged"):
        write_checkpoint(read_checkpoint(folder), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_pretrained_class_centres_are_taken_from_the_shards(folder):
    model = read_checkpoint(folder)
    match = find_match("all", {"num_classes": 7, "sets": []}, model.classes, 7, 1)
    head = build_head("cosface", 7, EMBEDDING_SIZE)
    head.initialize()
    text = load_head(head, model.head, match, 7)
    assert text == "class centres taken over: 7 of 7 (train.class_centres=all)"
    assert np.array_equal(head.weight.data().asnumpy(), class_values(7))

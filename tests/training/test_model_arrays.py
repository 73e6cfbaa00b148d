# SPDX-License-Identifier: Apache-2.0
"""Arrays of models: which ones a shard holds, and old checkpoints without shards."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from mxnet_arrays import find_arrays
from tests.training.sharded_model import (
    centres_and_momentum,
    class_values,
    fill,
    load,
    make_model,
    save,
)
from training import model_arrays
from training.checkpoint import CheckpointError, open_checkpoint, save_checkpoint


def save_undistributed(parent, num_classes, **options):
    model = make_model(num_classes, distributed=False, **options)
    fill(model, num_classes)
    meta = {"net": {"name": "dense"}, "image_size": [8, 8], "num_classes": num_classes}
    state = {"progress": {"step": 3}, "meta": meta}
    return save_checkpoint(parent, 3, model, state=state, keep=1)


@pytest.mark.parametrize("own_momentum", [True, False])
def test_a_shard_holds_the_per_class_arrays_and_rank_0_the_others(own_momentum):
    model = make_model(7, 1, 3, own_momentum=own_momentum, bias=True)
    fill(model, 7)
    shard = model_arrays.shard_arrays(model)
    assert {name: array.shape for name, array in shard.items()} == {
        "fc7_weight": (2, 3),
        "fc7_weight_momentum": (2, 3),
        "fc7_bias": (2,),
    }
    assert np.array_equal(np.concatenate([*shard["fc7_weight"].blocks]), class_values(7)[3:5])
    assert model_arrays.block_arrays(model.head).keys() == {"t"}
    assert model_arrays.momentum_arrays(model) == {}


def test_a_head_without_shard_is_one_set_of_arrays():
    model = make_model(7, distributed=False)
    assert model_arrays.distributed_names(model.head) == []
    assert model_arrays.block_arrays(model.head).keys() == {"t", "weight"}
    assert model_arrays.momentum_arrays(model).keys() == {"head.weight"}


@pytest.mark.parametrize("own_momentum", [True, False])
def test_a_distributed_head_reads_an_old_checkpoint(tmp_path, own_momentum):
    folder = save_undistributed(tmp_path, 7, own_momentum=own_momentum)
    assert open_checkpoint(folder).shards is None
    assert find_arrays(folder / "head.params")["weight"].shape == (7, 3)
    parts = [
        centres_and_momentum(load(folder, make_model(7, rank, 3, own_momentum=own_momentum)))
        for rank in range(3)
    ]
    for seed, arrays in zip((1, 2), zip(*parts)):
        assert np.array_equal(np.concatenate(arrays), class_values(7, seed=seed))


def test_a_head_without_shard_reads_shards(tmp_path):
    model = load(save(tmp_path, 7, 3), make_model(7, distributed=False))
    for seed, array in zip((1, 2), centres_and_momentum(model)):
        assert np.array_equal(array, class_values(7, seed=seed))


def test_a_rank_without_classes_loads_no_rows(tmp_path):
    folder = save(tmp_path, 2, 1)
    model = make_model(2, 2, 3)
    model.head.weight.set_data(mx.nd.ones((1, 3)) * 5)
    load(folder, model)
    assert model.head.weight.data().asnumpy().tolist() == [[5, 5, 5]]


def test_other_numbers_of_centres_per_class_are_refused(tmp_path):
    folder = save(tmp_path, 6, 2, per_class=2)
    text = (
        r"whose parameter 'weight' has shape \(6, 3\) on all ranks together, got shape \(12, 3\); "
        "use the configuration with which"
    )
    with pytest.raises(CheckpointError, match=text):
        load(folder, make_model(6, 1, 2))

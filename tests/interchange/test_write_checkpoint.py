# SPDX-License-Identifier: Apache-2.0
"""Imported models as checkpoints: training and evaluation open them; failures write nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interchange import InterchangeError
from interchange.read_checkpoint import read_checkpoint
from interchange.read_symbol import read_symbol
from interchange.write_checkpoint import write_checkpoint
from nets import build_net
from tests.interchange.symbols import EMBEDDING, SIZE, mobile_symbol, random_arrays, save
from training.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    symbol = mobile_symbol()
    arrays = {**random_arrays(symbol), "fc7_weight": np.ones((3, EMBEDDING))}
    return read_symbol(save(tmp_path_factory.mktemp("source") / "m", symbol, arrays))


@pytest.mark.parametrize("net", ["ours", "graph"])
def test_a_written_checkpoint_is_opened_with_equal_weights(tmp_path, model, net):
    if net == "graph":
        model = read_symbol(model.source, mean=100, std=128, image_size=SIZE)
    model = replace(model, threshold=0.25)
    assert write_checkpoint(model, tmp_path / "imported") < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]
    checkpoint = open_checkpoint(tmp_path / "imported")
    assert (checkpoint.image_size, checkpoint.mean, checkpoint.std) == (SIZE, 127.5, 128.0)
    built = build_net(image_size=SIZE, **checkpoint.meta["net"])
    built.initialize()
    checkpoint.load_net_parameters(built)
    again = read_checkpoint(tmp_path / "imported")
    assert (again.net, again.image_size, again.threshold) == (model.net, SIZE, 0.25)
    for name, array in {**model.parameters, **model.head}.items():
        found = again.head if name in again.head else again.parameters
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_model_that_differs_from_its_source_is_not_written(tmp_path, model):
    first = min(model.parameters)
    wrong = {**model.parameters, first: model.parameters[first] + 1}
    infinite = {**wrong, first: wrong[first] * np.inf}
    (tmp_path / "here").mkdir()
    for changed, name, problem in [
        (replace(model, parameters=wrong), "new", "as the original within 0.0001, got"),
        (replace(model, parameters=infinite), "new", f"got NaN or infinity in '{first}'"),
        (model, "here", "must not exist, got an existing path"),
        (model, "none/new", "the folder above the checkpoint must exist"),
    ]:
        with pytest.raises(InterchangeError, match=problem):
            write_checkpoint(changed, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]

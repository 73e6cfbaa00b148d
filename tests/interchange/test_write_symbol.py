# SPDX-License-Identifier: Apache-2.0
"""Symbols that are written: InsightFace's names, same embeddings, nothing after a failure."""

from __future__ import annotations

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from interchange import InterchangeError
from interchange.comparison import model_function
from interchange.read_symbol import read_symbol
from interchange.write_symbol import write_symbol
from tests.interchange.symbols import (
    EMBEDDING,
    SIZE,
    compute,
    mobile_symbol,
    normalised,
    pixels,
    random_arrays,
    save,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    symbol = mobile_symbol()
    centres = np.random.default_rng(1).normal(size=(3, EMBEDDING))
    prefix = tmp_path_factory.mktemp("source") / "m"
    return read_symbol(save(prefix, symbol, {**random_arrays(symbol), "fc7_weight": centres}))


def test_a_written_symbol_has_the_names_of_insightface_and_the_same_embeddings(tmp_path, model):
    assert write_symbol(model, tmp_path / "m", epoch=7, with_centres=True) < 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-0007.params", "m-symbol.json"]
    (tmp_path / "m-0007.params").rename(tmp_path / "m-0000.params")
    found = compute(tmp_path / "m", pixels())
    assert np.abs(found - normalised(model_function(model)(pixels()))).max() < 1e-5
    symbol, arguments, states = mx.model.load_checkpoint(str(tmp_path / "m"), 0)
    assert symbol.list_outputs() == ["fc1_output", "fc7_output"]
    names = symbol.get_internals().list_outputs()
    assert names[:4] == ["data", "_minusscalar0_output", "_mulscalar0_output", "stem_conv_weight"]
    assert "pre_fc1_output" in names and "fc1_moving_var" in states
    again = read_symbol(tmp_path / "m")
    assert (again.net, again.image_size) == (model.net, SIZE)
    np.testing.assert_array_equal(again.head["weight"], model.head["weight"])
    for name, array in model.parameters.items():
        np.testing.assert_allclose(again.parameters[name], array, rtol=1e-6, err_msg=name)
    block = mx.gluon.SymbolBlock(symbol, mx.sym.var("data", dtype="float32"))
    for name, parameter in block.params.items():
        parameter._load_init({**arguments, **states}[name], mx.cpu())
    cosines = block(mx.nd.array(pixels()))[1].asnumpy()
    np.testing.assert_allclose(cosines, found @ normalised(model.head["weight"]).T, atol=1e-5)


def test_nothing_appears_after_a_failure(tmp_path, model):
    broken = dict(model.parameters)
    broken["stem.norm.gamma"] = np.full_like(broken["stem.norm.gamma"], np.nan)
    for changed, options, problem in [
        (replace(model, parameters=broken), {}, "must give the same embeddings"),
        (replace(model, head={}), {"with_centres": True}, "got a model without a head"),
        (replace(model, head={"weight": np.ones((3, 2))}), {"with_centres": True}, "of 16 numbers"),
        (model, {"epoch": 10_000}, "epoch: must be from 0 to 9999, got 10000"),
    ]:
        with pytest.raises(InterchangeError, match=problem):
            write_symbol(changed, tmp_path / "m", **options)
    with pytest.raises(InterchangeError, match="the folder of the files must exist"):
        write_symbol(model, tmp_path / "none" / "m")
    assert not list(tmp_path.iterdir())

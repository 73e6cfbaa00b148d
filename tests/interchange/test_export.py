# SPDX-License-Identifier: Apache-2.0
"""Files and model cards of exported models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interchange import InterchangeError
from interchange.export import Provenance, export_model
from interchange.open_model import open_model
from tests.runs import save_run

SIZE = (32, 32)
WIDTH_1 = {"name": "mobilefacenet", "embedding_size": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(save_run(tmp_path_factory.mktemp("run"), net=WIDTH_1, image_size=SIZE))


def test_safetensors_read_back_as_the_same_weights(model, tmp_path):
    notices: list[str] = []
    out = tmp_path / "a.safetensors"
    files = export_model(model, out, format="safetensors", notify=notices.append)
    assert len(notices) == 1 and "32x32 pixels, but arcface_torch" in notices[0]
    assert files == [tmp_path / "a.safetensors", tmp_path / "a.safetensors.md"]
    back = open_model(files[0])
    assert (back.net["name"], back.image_size) == ("mobilefacenet", SIZE)
    for name, values in model.parameters.items():
        np.testing.assert_allclose(back.parameters[name], values, rtol=1e-5, atol=1e-7)


def test_the_card_states_the_input_and_the_provenance(model, tmp_path):
    facts = Provenance(licence="MIT", commit="0123abc")
    files = export_model(model, tmp_path / "a", format="symbol", provenance=facts)
    card = files[-1].read_text()
    for text in ("MIT", "0123abc", "32x32", "RGB", "pixels from 0 to 255", "not stated"):
        assert text in card


def test_weights_that_are_not_finite_are_refused(model, tmp_path):
    weights = {name: array.copy() for name, array in model.parameters.items()}
    weights["stem.conv.weight"][0] = np.nan
    for format in ("onnx", "symbol"):
        with pytest.raises(InterchangeError):
            export_model(replace(model, parameters=weights), tmp_path / "a", format=format)
    assert not list(tmp_path.iterdir())

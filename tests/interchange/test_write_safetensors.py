from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from interchange import write_safetensors as module
from interchange.model import InterchangeError
from interchange.read_torch import read_safetensors
from interchange.write_safetensors import write_safetensors
from tests.interchange.small_models import SIZE, embed, forward, images, random_model


@pytest.fixture(scope="module")
def model():
    return replace(random_model(), threshold=0.31)


def test_an_exported_file_reads_back_with_the_same_weights(tmp_path, model):
    path = tmp_path / "net.safetensors"
    (notice,) = write_safetensors(model, path, {"licence": "not stated"})
    assert "32x32" in notice
    back = read_safetensors(path)
    assert back.net == model.net and back.image_size == SIZE and back.threshold == 0.31
    for name, values in model.parameters.items():
        np.testing.assert_allclose(back.parameters[name], values, rtol=1e-6)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "not stated"
    assert metadata["value_range"] == "(pixel - 127.5) / 127.5"


def test_the_stored_weights_take_the_input_of_arcface_torch(tmp_path, model):
    write_safetensors(model, tmp_path / "net.safetensors")
    raw = read_safetensors(tmp_path / "net.safetensors", mean=127.5, std=128.0)
    np.testing.assert_allclose(
        forward(raw, (images() - 127.5) / 127.5), embed(model, images()), atol=1e-5
    )


def test_counters_and_the_bias_of_an_iresnet_are_written(tmp_path):
    path = tmp_path / "net.safetensors"
    write_safetensors(random_model("iresnet18", (16, 16)), path)
    arrays = safetensors.numpy.load_file(path)
    assert arrays["fc.bias"].tolist() == [0] * 8
    counter = arrays["layer1.0.bn1.num_batches_tracked"]
    assert counter.dtype == np.int64 and counter.shape == ()
    assert len(arrays) == 187  # the state dict of arcface_torch's iresnet18


@pytest.mark.parametrize(
    ("net", "found"),
    [
        (
            {"name": "mobilefacenet", "embedding_size": 8, "width": 0.5},
            "'mobilefacenet', width 0.5",
        ),
        ({"name": "r18", "embedding_size": 8, "unit": 1}, "'iresnet18', unit 1"),
        ({"name": "mobilefacenet_y2", "embedding_size": 8}, "'mobilefacenet_y2'"),
        ({"name": "graph", "symbol": "{}", "embedding_size": 8}, "'graph'"),
    ],
)
def test_a_network_without_counterpart_is_refused(tmp_path, model, net, found):
    with pytest.raises(InterchangeError, match=f"got {found}.*export the model as onnx"):
        write_safetensors(replace(model, net=net), tmp_path / "net.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_reads_back_differently_does_not_appear(tmp_path, model, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"older")
    monkeypatch.setattr(module, "TORCH_STD", 127.0)
    with pytest.raises(InterchangeError, match=r"other values of 'stem\.conv\.weight'"):
        write_safetensors(model, path)
    assert path.read_bytes() == b"older" and len([*tmp_path.iterdir()]) == 1


def test_a_missing_folder_is_named(tmp_path, model):
    with pytest.raises(InterchangeError, match="cannot be written, got No such file"):
        write_safetensors(model, tmp_path / "missing" / "net.safetensors")

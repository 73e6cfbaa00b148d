from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from interchange.arcface_torch import torch_name
from interchange.model import InterchangeError
from interchange.read_torch import read_safetensors, read_torch
from tests.interchange.small_models import SIZE, embed, forward, images, random_model
from tools.fuzzing.torch_files import save_zip, tensor


def state(model) -> dict[str, np.ndarray]:
    name = model.net["name"]
    arrays = {torch_name(name, own): values for own, values in model.parameters.items()}
    return {**arrays, "layers.0.layers.1.num_batches_tracked": np.array(5, np.int64)}


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_a_pth_file_gives_the_same_embeddings(tmp_path, model):
    path = tmp_path / "net.pth"
    arrays = {f"module.{name}": tensor(values) for name, values in state(model).items()}
    save_zip(path, {"state_dict": arrays})
    found = read_torch(path)
    assert found.net == model.net and found.image_size == SIZE and found.kind == "torch"
    wanted = forward(model, (images() - 127.5) / 127.5)
    np.testing.assert_allclose(embed(found, images()), wanted, atol=1e-5)


def test_a_safetensors_file_gives_the_same_weights_and_threshold(tmp_path, model):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(state(model), path, {"threshold": "0.25"})
    found = read_safetensors(path, mean=127.5, std=128)
    assert found.threshold == 0.25 and found.kind == "safetensors"
    for name, values in model.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], values)


def test_the_bias_of_an_iresnet_is_converted_exactly(tmp_path):
    model = random_model("iresnet18", (16, 16))
    arrays = state(model)
    del arrays["layers.0.layers.1.num_batches_tracked"]
    arrays["fc.bias"] = np.linspace(-2, 2, 8, dtype=np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "net.safetensors")
    found = read_safetensors(tmp_path / "net.safetensors")
    assert found.net == model.net and found.image_size == (16, 16)
    difference = (
        model.parameters["embedding.norm.running_mean"]
        - found.parameters["embedding.norm.running_mean"]
    )
    np.testing.assert_allclose(difference, arrays["fc.bias"], atol=1e-6)
    assert any("bias" in notice for notice in found.notices)


def test_the_first_layer_that_does_not_fit_is_named(tmp_path, model):
    arrays = state(model)
    path = tmp_path / "net.safetensors"
    for name, change, message in (
        ("layers.3.layers.1.layers.0.layers.0.weight", None, "got no tensor"),
        ("conv_sep.layers.0.weight", np.zeros((512, 64, 1, 1), np.float32), r"\(512, 64, 1, 1\)"),
    ):
        changed = {**arrays, name: change}
        if change is None:
            del changed[name]
        safetensors.numpy.save_file(changed, path)
        with pytest.raises(InterchangeError, match=rf"(?s){name}.*{message}|{message}.*{name}"):
            read_safetensors(path)
    safetensors.numpy.save_file({**arrays, "head.weight": np.zeros((2, 8), np.float32)}, path)
    with pytest.raises(InterchangeError, match="has no layer for a tensor 'head.weight', got"):
        read_safetensors(path)


def test_an_image_size_that_does_not_fit_is_refused(tmp_path, model):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(state(model), path)
    with pytest.raises(InterchangeError, match=r"features\.layers\.0\.layers\.0\.weight"):
        read_safetensors(path, (112, 112))

from __future__ import annotations

import numpy as np
import pytest

from interchange.layer_names import BIAS, Layer, fit_layers, fold_bias, net_layers, with_own_input
from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor
from tests.interchange.small_models import embed, forward, images, random_model

NAMES = {"w": Layer("conv.weight", (2, 3)), "b": Layer("conv.bias", (2,), optional=True)}


def tensors(**arrays) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(np.shape(a), "float32", lambda a=a: np.asarray(a, np.float32))
        for name, a in arrays.items()
    }


def test_tensors_get_our_names():
    found = fit_layers("f", "net", tensors(w=np.ones((2, 3)), b=np.zeros(2)), NAMES)
    assert {name: array.shape for name, array in found.items()} == {
        "conv.weight": (2, 3),
        "conv.bias": (2,),
    }
    assert [*fit_layers("f", "net", tensors(w=np.ones((2, 3))), NAMES)] == ["conv.weight"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"b": np.zeros(2)}, r"f: does not fit net, got no tensor 'w' of shape \(2, 3\)"),
        ({"w": np.ones((3, 2))}, r"whose tensor 'w' has the shape \(2, 3\), got \(3, 2\)"),
        (
            {"w": np.ones((2, 3)), "c": np.ones(4)},
            r"no layer for a tensor 'c', got one of shape \(4,\)",
        ),
        ({"w": np.full((2, 3), np.nan)}, "'w' must have finite"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(given, message):
    with pytest.raises(InterchangeError, match=message):
        fit_layers("f", "net", tensors(**given), NAMES)


def test_a_negative_variance_is_refused():
    names = {"running_var": Layer("norm.running_var", (2,))}
    with pytest.raises(
        InterchangeError, match="variances 'running_var' must be at least 0, got -1"
    ):
        fit_layers("f", "net", tensors(running_var=[1, -1]), names)


def test_a_single_value_is_repeated_where_the_caller_allows():
    names = {"a": Layer("act.alpha", (3,))}
    with pytest.raises(InterchangeError, match="'a' has the shape"):
        fit_layers("f", "net", tensors(a=[0.5]), names)
    found = fit_layers("f", "net", tensors(a=[0.5]), names, lambda layer, shape: shape == (1,))
    assert found["act.alpha"].tolist() == [0.5, 0.5, 0.5]


def test_a_bias_becomes_a_running_mean():
    parameters = {"embedding.norm.running_mean": np.ones(2, np.float32), BIAS: np.array([3, -1.0])}
    fold_bias(parameters)
    assert parameters["embedding.norm.running_mean"].tolist() == [-2, 2] and len(parameters) == 1


def test_sizes_that_no_network_has_are_refused():
    with pytest.raises(InterchangeError, match="f: the sizes fit no network"):
        net_layers("f", {"name": "mobilefacenet", "embedding_size": 0}, (112, 112))


@pytest.mark.parametrize(
    ("mean", "std", "order", "net"),
    [
        (127.5, (100.0, 64.0, 128.0), "bgr", "mobilefacenet"),
        ((123.0, 117.0, 104.0), 57.0, "bgr", "graph"),
    ],
)
def test_the_converted_input_gives_the_same_embeddings(mean, std, order, net):
    model, pixels = random_model(), images()
    converted = with_own_input(model, mean=mean, std=std, colour_order=order)
    assert converted.net["name"] == net and converted.notices
    ordered = pixels[..., ::-1] if order == "bgr" else pixels
    theirs = forward(model, (ordered - np.asarray(mean)) / np.asarray(std))
    np.testing.assert_allclose(embed(converted, pixels), theirs, atol=1e-5)


def test_our_own_input_changes_nothing():
    model = random_model()
    same = with_own_input(model, mean=127.5, std=128.0, colour_order="rgb")
    assert same.notices == () and all(
        np.array_equal(same.parameters[n], model.parameters[n]) for n in model.parameters
    )

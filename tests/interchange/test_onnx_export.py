# SPDX-License-Identifier: Apache-2.0
"""ONNX files of our networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from interchange.graph import Graph, Node, Output
from interchange.model import InterchangeError
from interchange.net_graph import model_graph
from interchange.onnx_export import OnnxSettings, build_onnx, write_onnx
from interchange.read_onnx import read_onnx
from tests.interchange.onnx_models import (
    SIZE,
    embed_with,
    normalised,
    random_images,
    small_model,
    unit,
)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def paths(model, tmp_path_factory):
    """Return the path of a file for each scaling."""
    folder = tmp_path_factory.mktemp("onnx")
    for scaling in ("inside", "outside"):
        write(model, folder / f"{scaling}.onnx", scaling)
    return {scaling: folder / f"{scaling}.onnx" for scaling in ("inside", "outside")}


def write(model, path, scaling="inside", **settings):
    chosen = OnnxSettings(model.image_size, scaling, **settings)
    write_onnx(model_graph(model), path, embed=embed_with(model), settings=chosen)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("scaling", ["inside", "outside"])
def test_the_file_computes_the_embeddings_of_mxnet_for_any_batch(model, paths, scaling):
    session = onnxruntime.InferenceSession(str(paths[scaling]))
    pixels = random_images(9)
    expected = unit(embed_with(model)(normalised(pixels)))
    inputs = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    inputs = inputs if scaling == "inside" else (inputs - 127.5) / 127.5
    for count in (1, 2, 9):
        (found,) = session.run(["fc1"], {"data": inputs[:count]})
        np.testing.assert_allclose(unit(found), expected[:count], atol=1e-5)


def test_the_file_has_the_form_that_programs_expect(paths):
    found = onnx.load(paths["inside"])
    onnx.checker.check_model(found, full_check=True)
    assert found.ir_version == 8 and [o.version for o in found.opset_import] == [13]
    (value,), (output,) = found.graph.input, found.graph.output
    shape = value.type.tensor_type.shape.dim
    assert value.name == "data" and shape[0].dim_param == "N"
    assert [side.dim_value for side in shape[1:]] == [3, *SIZE]
    assert output.name == "fc1"
    assert [side.dim_value for side in output.type.tensor_type.shape.dim] == [0, 8]


def names_of_scaling(path):
    """Return the names by which the insightface package finds scaling inside the file."""
    first = [node.name for node in onnx.load(path).graph.node[:8]]
    return [any(name.startswith(each) for name in first) for each in ("Sub", "Mul")]


def test_insightface_sees_from_the_names_where_the_scaling_is(paths):
    assert names_of_scaling(paths["inside"]) == [True, True]
    assert names_of_scaling(paths["outside"]) == [False, False]


def test_the_metadata_state_size_colours_range_and_what_the_caller_adds(model, tmp_path):
    metadata = {"net": "mobilefacenet", "licence": "MIT", "threshold": "0.25"}
    write(model, tmp_path / "m.onnx", metadata=metadata)
    found = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert found["net"] == "mobilefacenet" and found["licence"] == "MIT"
    assert found["image_size"] == "32x32" and found["colour_order"] == "RGB"
    assert found["value_range"] == "pixels from 0 to 255"
    assert read_onnx(tmp_path / "m.onnx").threshold == 0.25


def test_class_centres_are_a_second_output_of_cosines(model, tmp_path):
    centres = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    session = write(model, tmp_path / "m.onnx", class_centres=centres)
    pixels = random_images(3).transpose(0, 3, 1, 2).astype(np.float32)
    embeddings, cosines = session.run(["fc1", "fc7"], {"data": pixels})
    np.testing.assert_allclose(cosines, unit(embeddings) @ unit(centres).T, atol=1e-5)


def test_a_stored_gamma_that_mxnet_ignores_is_ignored():
    norm = {role: role for role in ("gamma", "beta", "running_mean", "running_var")}
    tensors = {role: np.full(3, 3.0, np.float32) for role in norm}
    settings = {"epsilon": 1e-5, "momentum": 0.9, "fixed_scale": True}
    nodes = (
        Node("norm", "batch_norm", (Output("data"),), norm, settings),
        Node("out", "flatten", (Output("norm"),)),
    )
    graph = Graph(("data",), nodes, (Output("out"),), tensors)
    model = build_onnx(graph, OnnxSettings((2, 2), "plain"), embedding_size=12)
    gamma = next(t for t in model.graph.initializer if t.name == "gamma")
    assert onnx.numpy_helper.to_array(gamma).tolist() == [1, 1, 1]


def test_a_file_that_computes_other_embeddings_does_not_appear(model, tmp_path):
    other = small_model(seed=1)
    with pytest.raises(
        InterchangeError, match="must compute the embeddings of MXNet within 0.0001"
    ):
        write_onnx(
            model_graph(model),
            tmp_path / "m.onnx",
            embed=embed_with(other),
            settings=OnnxSettings(SIZE),
        )
    assert not list(tmp_path.iterdir())


def test_embeddings_that_are_not_finite_are_refused(model, tmp_path):
    with pytest.raises(InterchangeError, match="got a difference of nan"):
        write_onnx(
            model_graph(model),
            tmp_path / "m.onnx",
            embed=lambda images: np.full((len(images), 8), np.nan),
            settings=OnnxSettings(SIZE),
        )
    assert not list(tmp_path.iterdir())


def test_an_operator_without_a_counterpart_is_named():
    nodes = (Node("warp_3", "mxnet.GridGenerator", (Output("data"),)),)
    graph = Graph(("data",), nodes, (Output("warp_3"),), {})
    with pytest.raises(InterchangeError, match=r"node 'warp_3': .* got 'mxnet.GridGenerator'; "):
        build_onnx(graph, OnnxSettings(SIZE), embedding_size=8)


def test_outside_scaling_of_a_net_without_a_first_convolution_is_a_node():
    nodes = (Node("out", "flatten", (Output("data"),)),)
    graph = Graph(("data",), nodes, (Output("out"),), {})
    model = build_onnx(graph, OnnxSettings((2, 2), "outside"), embedding_size=12)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"data": np.ones((1, 3, 2, 2), np.float32)})
    np.testing.assert_allclose(found, np.full((1, 12), 127.5 / 128, np.float32))


def test_our_own_files_come_back_with_the_same_weights(model, paths):
    for path in paths.values():
        found = read_onnx(path)
        assert dict(found.net) == dict(model.net) and found.image_size == SIZE
        for name, value in model.parameters.items():
            np.testing.assert_allclose(found.parameters[name], value, rtol=1e-6, err_msg=name)

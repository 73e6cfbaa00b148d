# SPDX-License-Identifier: Apache-2.0
"""ONNX files of other projects, good and bad."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from interchange.model import InterchangeError
from interchange.net_graph import model_graph
from interchange.onnx_export import OnnxSettings, build_onnx
from interchange.read_onnx import read_onnx
from interchange.stored_net import build_stored_net
from tests.interchange.onnx_models import (
    SIZE,
    embed_with,
    normalised,
    onnx_model,
    random_images,
    small_model,
    unit,
)


def foreign(model, scaling="plain"):
    settings = OnnxSettings(model.image_size, scaling)
    return build_onnx(model_graph(model), settings, embedding_size=8)


def folded(model):
    """Fold every batch normalisation after a convolution into the convolution, as PyTorch does."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    convolutions = {node.output[0]: node for node in model.graph.node if node.op_type == "Conv"}
    remaining, stored = [], dict(tensors)
    for node in model.graph.node:
        conv = convolutions.get(node.input[0])
        if node.op_type != "BatchNormalization" or conv is None:
            remaining.append(node)
            continue
        gamma, beta, mean, variance = (tensors[name] for name in node.input[1:])
        scale = gamma / np.sqrt(variance + node.attribute[0].f)
        stored[conv.input[1]] = tensors[conv.input[1]] * scale[:, None, None, None]
        stored[f"{conv.name}_bias"] = beta - mean * scale
        conv.input.append(f"{conv.name}_bias")
        conv.output[0] = node.output[0]
        for name in node.input[1:]:
            stored.pop(name, None)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(remaining)
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in stored.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def save(model, folder, name="m.onnx"):
    onnx.save(model, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def folded_path(model, tmp_path_factory):
    return save(folded(foreign(model)), tmp_path_factory.mktemp("folded"))


def test_folded_normalisations_get_the_statistics_of_the_images(model, folded_path):
    images = random_images(12)
    found = read_onnx(folded_path, mean=127.5, std=128, calibration_images=images)
    assert not found.notices
    values = normalised(images)
    expected = unit(embed_with(model)(values))
    np.testing.assert_allclose(unit(embed_with(found)(values)), expected, atol=1e-5)

    net, data = build_stored_net(found), mx.nd.array(values)
    outputs = net.stem.conv(data).asnumpy()
    mean, variance = (found.parameters[f"stem.norm.running_{name}"] for name in ("mean", "var"))
    np.testing.assert_allclose(mean, outputs.mean(axis=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(variance, outputs.var(axis=(0, 2, 3)), rtol=1e-4)

    # Training normalises with the statistics of the batch: the first step has the same outputs.
    def features():
        return net.last(net.stages(net.stem_depthwise(net.stem(data)))).asnumpy()

    with mx.autograd.record(train_mode=True):
        trained = features()
    inferred = features()
    np.testing.assert_allclose(trained, inferred, atol=2e-3 * np.abs(inferred).max())


def test_random_noise_replaces_missing_images_and_a_notice_says_so(model, folded_path):
    found = read_onnx(folded_path, mean=127.5, std=128)
    assert any("random noise" in notice for notice in found.notices)
    values = normalised(random_images(3))
    expected = unit(embed_with(model)(values))
    np.testing.assert_allclose(unit(embed_with(found)(values)), expected, atol=1e-5)


def with_reshape_for_one_image(model):
    """Replace Flatten by Reshape to (1, -1), and make the file one for a single image."""
    for node in model.graph.node:
        if node.op_type == "Flatten":
            node.op_type = "Reshape"
            node.input.append("shape")
            del node.attribute[:]
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def test_a_file_for_one_image_is_read_for_any_batch(model, tmp_path):
    path = save(with_reshape_for_one_image(foreign(model, "outside")), tmp_path)
    found = read_onnx(path)
    images = normalised(random_images(3))
    np.testing.assert_allclose(
        unit(embed_with(found)(images)), unit(embed_with(model)(images)), atol=1e-5
    )


def test_the_default_input_is_that_of_insightface_and_the_notice_says_so(model, tmp_path):
    found = read_onnx(save(foreign(model, "outside"), tmp_path))
    assert any("(x - 127.5) / 127.5" in notice for notice in found.notices)
    np.testing.assert_allclose(
        found.parameters["stem.conv.weight"], model.parameters["stem.conv.weight"], rtol=1e-6
    )


def test_another_network_is_taken_as_a_graph(tmp_path):
    generator = np.random.default_rng(0)
    tensors = {
        "w": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "slope": np.array([0.3], np.float32),
        "matrix": generator.normal(size=(4 * 16, 8)).astype(np.float32),
        "bias": generator.normal(size=8).astype(np.float32),
    }
    nodes = [
        ("Conv", ["data", "w"], ["a"], {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ("PRelu", ["a", "slope"], ["b"], {}),
        ("Shape", ["b"], ["shape"], {}),
        ("Constant", [], ["zero"], {"value_int": 0}),
        ("Gather", ["shape", "zero"], ["count"], {}),
        ("Unsqueeze", ["count", "axes"], ["first"], {}),
        ("Concat", ["first", "rest"], ["vector"], {"axis": 0}),
        ("Reshape", ["b", "vector"], ["c"], {}),
        ("MatMul", ["c", "matrix"], ["d"], {}),
        ("Add", ["bias", "d"], ["out"], {}),
    ]
    tensors |= {"axes": np.array([0]), "rest": np.array([-1])}
    path = save(onnx_model(nodes, tensors, size=(8, 8)), tmp_path)
    images = random_images(5, (8, 8))
    inputs = (images.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"data": inputs})
    found = read_onnx(path)
    assert found.net["name"] == "graph" and found.net["embedding_size"] == 8
    assert any("is none of this project's networks" in notice for notice in found.notices)
    np.testing.assert_allclose(embed_with(found)(normalised(images)), expected, atol=1e-4)


def test_every_opset_from_7_is_read_and_others_are_refused(tmp_path):
    nodes = [("Flatten", ["data"], ["a"], {}), ("Gemm", ["a", "w", "b"], ["out"], {"transB": 1})]
    tensors = {"w": np.ones((4, 90), np.float32), "b": np.zeros(4, np.float32)}
    for opset in (7, 9, 11, 13, 18, 21):
        found = read_onnx(save(onnx_model(nodes, tensors, opset=opset), tmp_path))
        assert found.net["embedding_size"] == 4
    for opset in (6, 22):
        with pytest.raises(InterchangeError, match=f"a version from 7 to 21, got {opset}; "):
            read_onnx(save(onnx_model(nodes, tensors, opset=opset), tmp_path))


FLAT = [("Flatten", ["data"], ["out"], {})]


def damaged_models():
    """Yield (name, model or bytes, expected message)."""
    good = onnx_model([("Flatten", ["data"], ["out"], {})]).SerializeToString()
    yield "truncated", good[: len(good) // 2], "undamaged ONNX model"
    yield "text", b"hello world, no model", "undamaged ONNX model|operator set"
    yield "empty", b"", "operator set of an ONNX file .* got None"
    unknown = onnx_model([("Flatten", ["data"], ["a"], {}), ("Einsum", ["a"], ["out"],
                         {"equation": "ij->ij"})])  # fmt: skip
    yield "unknown operator", unknown, r"node 'out' \(Einsum\): the operator is not supported, got"
    private = onnx_model([("Warp", ["data"], ["out"], {})])
    private.graph.node[0].domain = "com.example"
    private.opset_import.append(helper.make_opsetid("com.example", 1))
    yield "private operator", private, r"node 'out' \(Warp\): .* got com.example.Warp; "
    missing = onnx_model([("Conv", ["data", "w"], ["out"], {})])
    yield "missing tensor", missing, "undamaged ONNX model, got '.*w"
    channels = onnx_model(FLAT)
    channels.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 112
    yield "channels last", channels, r"must have the shape \(images, 3, height, width\), got"
    two = onnx_model(FLAT)
    two.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    yield "two inputs", two, "has one input, got data, mask; "
    outputs = onnx_model(FLAT)
    outputs.graph.output.append(helper.make_tensor_value_info("data", TensorProto.FLOAT, [1]))
    yield (
        "two outputs",
        outputs,
        "must have exactly one output, or an output named 'fc1' among several, got out, data; ",
    )
    outside = onnx_model([("Conv", ["data", "w"], ["out"], {})],
                         {"w": np.ones((2, 3, 1, 1), np.float32)})  # fmt: skip
    tensor = outside.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    yield "external data", outside, "must be inside the ONNX file, got tensor 'w'"
    bomb = onnx_model([("Conv", ["data", "w"], ["out"], {})],
                      {"w": np.ones((2, 3, 1, 1), np.float32)})  # fmt: skip
    bomb.graph.initializer[0].dims[0] = 2**40
    yield "huge tensor", bomb, "undamaged ONNX model, got 'tensor 'w' of shape"
    fill = onnx_model(
        [("ConstantOfShape", ["n"], ["c"], {}), ("Mul", ["data", "c"], ["out"], {})],
        {"n": np.array([2**40], np.int64)},
    )
    yield "huge constant", fill, r"node 'c' \(ConstantOfShape\): .*too many elements"
    images = onnx_model([("Relu", ["data"], ["out"], {})])
    yield "no vectors", images, "the output must be one vector per image"
    constant = onnx_model([("Constant", [], ["out"], {"value_float": 1.0})])
    yield "constant output", constant, "'out' must depend on the images"
    training = onnx_model(
        [("BatchNormalization", ["data", *"gbmv"], ["out", "x", "y"], {"training_mode": 1})],
        {name: np.ones(3, np.float32) for name in "gbmv"},
        opset=15,
    )
    yield "training mode", training, r"node 'out' \(BatchNormalization\): "
    slope = onnx_model([("PRelu", ["data", "s"], ["out"], {})],
                       {"s": np.ones((3, 6, 5), np.float32)})  # fmt: skip
    yield "slopes per pixel", slope, r"node 'out' \(PRelu\): slopes must be one number, or"
    weight = onnx_model([("Conv", ["data", "w"], ["a"], {}), ("Flatten", ["a"], ["out"], {})],
                        {"w": np.ones((2, 4, 1, 1), np.float32)})  # fmt: skip
    yield "channels", weight, "must fit images|must have|does not fit"


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in damaged_models()],
)
def test_a_bad_file_gives_one_sentence(content, message, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(InterchangeError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_calibration_images_of_another_size_are_refused(model, folded_path):
    with pytest.raises(InterchangeError, match=r"uint8 of shape \(N, 32, 32, 3\), got uint8 "):
        read_onnx(folded_path, calibration_images=random_images(4, (16, 16)))
    with pytest.raises(InterchangeError, match="at least 2 images, got 1; "):
        read_onnx(folded_path, calibration_images=random_images(1))


def test_an_image_size_that_the_file_excludes_is_refused(model, tmp_path):
    path = save(foreign(model), tmp_path)
    with pytest.raises(InterchangeError, match="32x32 pixels, got 64x64; "):
        read_onnx(path, image_size=(64, 64))
    assert read_onnx(path, image_size=SIZE).image_size == SIZE

# SPDX-License-Identifier: Apache-2.0
"""Small networks with random weights and statistics, and small ONNX files, for tests."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from interchange.model import StoredModel
from interchange.stored_net import build_stored_net
from nets import build_net

SIZE = (32, 32)


def small_model(name="mobilefacenet", size=SIZE, seed=0, **options):
    """Return a stored model of one of our networks with random values in every parameter."""
    options = {"width": 0.125, **options} if name == "mobilefacenet" else options
    net = build_net(name, size, embedding_size=8, **options)
    generator = np.random.default_rng(seed)

    def values(parameter_name, shape):
        kind = parameter_name.rpartition(".")[2]
        if kind == "running_var":
            return generator.uniform(0.5, 2, shape)
        if kind == "gamma":
            return generator.uniform(0.5, 1.5, shape)
        if kind == "alpha":
            return generator.uniform(0.05, 0.5, shape)
        scale = (2 / np.prod(shape[1:])) ** 0.5 if kind == "weight" else 0.2
        return generator.normal(0, scale, shape)

    parameters = {
        name: values(name, parameter.shape).astype(np.float32)
        for name, parameter in net._collect_params_with_prefix().items()
    }
    return StoredModel("test", "checkpoint", {"name": name, "embedding_size": 8, **options}, size,
                       parameters)  # fmt: skip


def embed_with(model):
    """Return a function that computes the embeddings of normalised images in MXNet."""
    import mxnet as mx

    net = build_stored_net(model)
    return lambda images: net(mx.nd.array(images)).asnumpy()


def random_images(count=4, size=SIZE, seed=5):
    """Return pixels (count, height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def normalised(images):
    """Convert pixels (N, height, width, 3) to the input of our networks."""
    return (images.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def onnx_model(nodes, tensors=(), *, opset=13, batch="N", size=(6, 5), output="out", domain=""):
    """Return a model from the input "data" (batch, 3, height, width) to one output."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, name=outputs[0], **attributes)
         for op, inputs, outputs, attributes in nodes],
        "test",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, "E"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(tensors).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)],
                             ir_version=8)  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""Write networks as ONNX files that ONNX Runtime, OpenCV, TensorRT and insightface read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from atomic_write import atomic_write
from interchange.graph import Graph, Output
from interchange.model import InterchangeError
from interchange.net_graph import simplify
from interchange.onnx_nodes import write_node
from interchange.onnx_writer import NodeWriter
from normalization import MEAN, STD

INPUT, EMBEDDING, COSINES = "data", "fc1", "fc7"
OPSET, IR_VERSION = 13, 8
OUTSIDE_STD = 127.5
"""Divisor of the pixels in programs that scale images before the network, such as insightface."""
CHECKED_IMAGES = 64
CHECKED_BATCHES = (1, 7, 64)
MAX_DIFFERENCE = 1e-4
"""Largest accepted difference of a component of an embedding of unit length."""

Scaling = Literal["inside", "outside", "plain"]
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class OnnxSettings:
    """Choices for an ONNX file.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    scaling
        "inside": the file takes pixels from 0 to 255 and scales them.  "outside": the file takes
        (x - 127.5) / 127.5 for pixels x from 0 to 255, as insightface and arcface_torch pass them.
        "plain": the file takes (x - 127.5) / 128, as our networks do.
    metadata
        Texts to store in the file, by name, for example {"net": "mobilefacenet"}.
    class_centres
        Class centres (C, E).  With class centres the file has a second output "fc7": the cosines
        (B, C) of embeddings and class centres.  insightface opens only files with one output.
    """

    image_size: tuple[int, int]
    scaling: Scaling = "inside"
    metadata: Mapping[str, str] = field(default_factory=dict)
    class_centres: np.ndarray | None = None


def write_onnx(graph: Graph, path: str | Path, *, embed: Embed, settings: OnnxSettings) -> float:
    """Write a network as an ONNX file; the file appears only if it computes the same embeddings.

    The number of images per batch is free, the image size is fixed.  The input is named "data"
    (B, 3, H, W) float32, RGB; the output is named "fc1" (B, E) float32, not normalised.

    Parameters
    ----------
    graph
        Graph of the network in inference mode; its input is (x - 127.5) / 128 for pixels x.
    path
        Path of the file; its folder must exist.
    embed
        Function that computes the embeddings (B, E) of the same network in MXNet from images
        (B, 3, H, W) float32 with values (x - 127.5) / 128.

    Returns
    -------
    float
        Largest difference between the normalised embeddings of MXNet and of ONNX Runtime.

    Raises
    ------
    InterchangeError
        If an operator has no counterpart in ONNX, or if ONNX Runtime computes other embeddings.
    """
    pixels = _random_pixels(settings.image_size)
    expected = _unit(np.asarray(embed((pixels - MEAN) / np.float32(STD))))
    model = build_onnx(graph, settings, embedding_size=expected.shape[1])
    content = model.SerializeToString()
    scales = {"inside": pixels, "outside": (pixels - MEAN) / np.float32(OUTSIDE_STD)}
    inputs = scales.get(settings.scaling, (pixels - MEAN) / np.float32(STD))
    difference = _check(content, inputs, expected, where=str(path))
    with atomic_write(path) as file:
        file.write(content)
    return difference


def build_onnx(graph: Graph, settings: OnnxSettings, *, embedding_size: int) -> ModelProto:
    """Return the ONNX model of a network and check its structure; see `write_onnx`."""
    graph = simplify(graph).without(lambda node: node.op == "dropout")
    nodes, initializers = _write_nodes(graph, settings)
    height, width = settings.image_size
    outputs = [_float32(EMBEDDING, ["N", embedding_size])]
    if settings.class_centres is not None:
        outputs.append(_float32(COSINES, ["N", len(settings.class_centres)]))
    onnx_graph = helper.make_graph(
        nodes,
        "network",
        [_float32(INPUT, ["N", 3, height, width])],
        outputs,
        initializers,
    )
    model = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="face-training",
    )
    helper.set_model_props(model, {**onnx_contract(settings), **settings.metadata})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise InterchangeError(
            f"ONNX graph: the operators do not fit each other, got '{reason}'; "
            f"export the network with --format symbol"
        ) from error
    return model


def _float32(name: str, shape: list[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def onnx_contract(settings: OnnxSettings) -> dict[str, str]:
    """Return the metadata that describes the input and the output."""
    ranges = {
        "inside": "pixels from 0 to 255",
        "outside": f"(pixel - {MEAN}) / {OUTSIDE_STD}",
        "plain": f"(pixel - {MEAN}) / {STD:g}",
    }
    height, width = settings.image_size
    return {
        "image_size": f"{height}x{width}",
        "colour_order": "RGB",
        "layout": "NCHW",
        "value_range": ranges[settings.scaling],
        "scaling": settings.scaling,
        "output": "embedding, not normalised",
    }


def _write_nodes(graph: Graph, settings: OnnxSettings) -> tuple[list[NodeProto], list[TensorProto]]:
    factor = 1.0
    if settings.scaling == "outside":
        graph, factor = _rescaled(graph, OUTSIDE_STD / STD)
    writer = NodeWriter(graph, reserved=(INPUT, EMBEDDING, COSINES))
    value = INPUT
    if settings.scaling == "inside":
        # insightface scales the pixels itself, unless the first eight nodes contain one whose name
        # begins with Sub and one whose name begins with Mul.
        (value,) = writer.emit("Sub", [INPUT, writer.number("mean", MEAN)], "Sub_mean")
        (value,) = writer.emit("Mul", [value, writer.number("scale", 1 / STD)], "Mul_scale")
    elif factor != 1:
        (value,) = writer.emit("Mul", [INPUT, writer.number("factor", factor)], "rescaled")
    for name in graph.inputs:
        writer.assign(name, [value])
    for node in graph:
        write_node(writer, node)
    embedding = writer.value(graph.outputs[0])
    if settings.class_centres is not None:
        _write_cosines(writer, embedding, settings.class_centres)
    _rename(writer.nodes, embedding, EMBEDDING)
    return writer.nodes, list(writer.initializers.values())


def _rescaled(graph: Graph, factor: float) -> tuple[Graph, float]:
    """Move a factor of the input into the weights of the first convolutions, if possible.

    The move is possible if the input feeds only convolutions and no other layer shares their
    weights.  The move is exact, because the factor does not change the padding, which is 0.

    Returns
    -------
    tuple
        The graph, and the factor by which its input still has to be multiplied: 1 after the move,
        ``factor`` without the move.
    """
    users = graph.consumers().get(Output(graph.inputs[0]), [])
    weights = {node.tensors.get("weight", "") for node in users}
    others = {
        name for node in graph if node not in users for name in node.tensors.values()
    }  # tensors of the other layers
    if any(node.op != "conv" for node in users) or weights & others:
        return graph, factor
    scaled = {name: graph.tensors[name] * np.float32(factor) for name in weights}
    return replace(graph, tensors={**graph.tensors, **scaled}), 1.0


def _write_cosines(writer: NodeWriter, embedding: str, centres: np.ndarray) -> None:
    (length,) = writer.emit("ReduceL2", [embedding], f"{COSINES}_length", axes=[1], keepdims=1)
    (unit,) = writer.emit("Div", [embedding, length], f"{COSINES}_unit")
    weight = writer.initializer(f"{COSINES}_weight", _unit(centres.astype(np.float32)).T)
    (cosines,) = writer.emit("MatMul", [unit, weight], f"{COSINES}_cosines")
    _rename(writer.nodes, cosines, COSINES)


def _rename(nodes: list[NodeProto], before: str, after: str) -> None:
    """Rename a value and the node that computes the value."""
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [after if value == before else value for value in values]
        if node.name == before:
            node.name = after


def _random_pixels(image_size: tuple[int, int]) -> np.ndarray:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (CHECKED_IMAGES, 3, *image_size))
    return pixels.astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _check(content: bytes, inputs: np.ndarray, expected: np.ndarray, *, where: str) -> float:
    """Compare embeddings of ONNX Runtime with the expected ones in batches of several sizes."""
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # log only errors
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = {
            size: session.run([EMBEDDING], {INPUT: inputs[:size]})[0] for size in CHECKED_BATCHES
        }
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        reason = " ".join(str(error).split())
        raise InterchangeError(
            f"{where}: ONNX Runtime cannot run the network, got '{reason}'; "
            f"export the network with --format symbol"
        ) from error
    differences = {
        size: float(np.abs(_unit(rows) - expected[:size]).max()) for size, rows in found.items()
    }
    size, worst = max(differences.items(), key=lambda item: item[1])
    if not worst <= MAX_DIFFERENCE:
        raise InterchangeError(
            f"{where}: ONNX Runtime must compute the embeddings of MXNet within "
            f"{MAX_DIFFERENCE:g}, got a difference of {worst:g} in a batch of {size}; export the "
            f"network with --format symbol"
        )
    return worst

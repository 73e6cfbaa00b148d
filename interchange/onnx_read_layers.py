# SPDX-License-Identifier: Apache-2.0
"""Conversion of ONNX layers with parameters, and of pooling, to nodes of a `Graph`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.onnx_reader import GraphReader, attributes_of

if TYPE_CHECKING:
    from onnx import NodeProto

    from interchange.graph import Output

Reading = Callable[["GraphReader", "NodeProto"], None]


def _window(
    reader: GraphReader, node: NodeProto, kernel: list[int], *, is_max: bool = False
) -> tuple[Output, dict[str, Any]]:
    """Return the input and the settings of a convolution or pooling, with symmetric padding.

    If the padding of the ONNX node differs between opposite sides, a separate node pads the input.
    """
    attributes, value = attributes_of(node), reader.value(node)
    if len(kernel) != 2:
        raise reader.refuse(node, "the kernel must have two dimensions", kernel)
    stride = attributes.get("strides", [1, 1])
    dilation = attributes.get("dilations", [1, 1])
    pads = _pads(reader, node, attributes, kernel)
    if pads[:2] != pads[2:]:
        if is_max or not attributes.get("count_include_pad", node.op_type == "Conv"):
            raise reader.refuse(node, "the padding must be the same on opposite sides", pads)
        widths = (0, 0, 0, 0, pads[0], pads[2], pads[1], pads[3])
        value = reader.add(
            node,
            "mxnet.Pad",
            [value],
            mode="constant",
            pad_width=str(widths),
            constant_value="0",
        )
        pads = [0, 0, 0, 0]
    return value, {
        "kernel": tuple(kernel),
        "stride": tuple(stride),
        "padding": tuple(pads[:2]),
        "dilation": tuple(dilation),
    }


def _pads(
    reader: GraphReader, node: NodeProto, attributes: dict[str, Any], kernel: list[int]
) -> list[int]:
    """Return the padding (top, left, bottom, right)."""
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        return list(attributes.get("pads", [0, 0, 0, 0]))
    if automatic == "VALID":
        return [0, 0, 0, 0]
    sides = reader.shape(node)[2:]
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    totals = [
        max(0, (-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side)
        for side, stride, size, dilation in zip(sides, strides, kernel, dilations, strict=True)
    ]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if automatic == "SAME_UPPER" else [*more, *less]


def _conv(reader: GraphReader, node: NodeProto) -> None:
    weight = reader.constant(node, 1)
    if weight.ndim != 4:
        raise reader.refuse(node, "the weight must have four axes", f"the shape {weight.shape}")
    kernel = list(weight.shape[2:])
    value, settings = _window(reader, node, kernel)
    tensors = {"weight": reader.tensor(node, 1)}
    if reader.constant(node, 2) is not None:
        tensors["bias"] = reader.tensor(node, 2, (len(weight),))
    groups = attributes_of(node).get("group", 1)
    reader.finish(node, "conv", [value], tensors, **settings, groups=groups)


def _batch_norm(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    if attributes.get("training_mode", 0) or not attributes.get("spatial", 1):
        raise reader.refuse(node, "training_mode must be 0 and spatial must be 1", "other values")
    roles = ("gamma", "beta", "running_mean", "running_var")
    tensors = {role: reader.tensor(node, index, (-1,)) for index, role in enumerate(roles, 1)}
    reader.finish(
        node,
        "batch_norm",
        [reader.value(node)],
        tensors,
        epsilon=float(attributes.get("epsilon", 1e-5)),
        momentum=float(attributes.get("momentum", 0.9)),
        fixed_scale=False,
    )


def _prelu(reader: GraphReader, node: NodeProto) -> None:
    slope = reader.constant(node, 1)
    shape = reader.shape(node)
    # Old exporters write slopes of shape (C,) for feature maps (B, C, H, W), although ONNX aligns
    # (C,) with the last axis W.  The reader takes such slopes as one per channel.
    if slope.size not in (1, shape[1] or slope.size) or slope.size != max(slope.shape, default=1):
        raise reader.refuse(
            node, "slopes must be one number, or one per channel", f"the shape {slope.shape}"
        )
    reader.finish(node, "prelu", [reader.value(node)], {"slope": reader.tensor(node, 1, (-1,))})


def _gemm(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    if attributes.get("transA", 0):
        raise reader.refuse(node, "transA must be 0", attributes["transA"])
    weight = reader.constant(node, 1)
    weight = weight if attributes.get("transB", 0) else weight.T
    weight = weight * np.float32(attributes.get("alpha", 1.0))
    tensors = {"weight": reader.store(node.input[1], weight)}
    bias = reader.constant(node, 2)
    if bias is not None:
        wide = np.broadcast_to(bias, (1, len(weight)))[0] * np.float32(attributes.get("beta", 1.0))
        tensors["bias"] = reader.store(node.input[2], wide)
    reader.finish(node, "dense", [reader.value(node)], tensors)


def _matmul(reader: GraphReader, node: NodeProto) -> None:
    if not reader.is_constant(node.input[1]) or reader.constant(node, 1).ndim != 2:
        values = [reader.value(node, 0), reader.value(node, 1)]
        reader.finish(node, "mxnet._linalg_gemm2", values)
        return
    weight = reader.store(node.input[1], reader.constant(node, 1).T)
    if reader.rank(node) == 2:
        reader.finish(node, "dense", [reader.value(node)], {"weight": weight})
        return
    # The value has more than two axes; the matrix multiplies its last axis.
    matrix = reader.add(node, "constant", (), {"value": weight})
    units = len(reader.tensors[weight])
    reader.finish(
        node,
        "mxnet.FullyConnected",
        [reader.value(node), matrix],
        num_hidden=str(units),
        no_bias="True",
        flatten="False",
    )


def _pool(kind: str) -> Reading:
    def read(reader: GraphReader, node: NodeProto) -> None:
        attributes = attributes_of(node)
        kernel = list(attributes["kernel_shape"])
        value, settings = _window(reader, node, kernel, is_max=kind == "max")
        if settings.pop("dilation") != (1, 1):
            raise reader.refuse(node, "dilations must be 1", attributes["dilations"])
        include = kind == "max" or bool(attributes.get("count_include_pad", 0))
        ceil = bool(attributes.get("ceil_mode", 0))
        reader.finish(
            node, "pool", [value], kind=kind, **settings, ceil_mode=ceil, include_padding=include
        )

    return read


def _global_pool(kind: str) -> Reading:
    return lambda reader, node: reader.finish(node, "global_pool", [reader.value(node)], kind=kind)


def _layer_norm(reader: GraphReader, node: NodeProto) -> None:
    attributes, rank = attributes_of(node), reader.rank(node)
    axis = attributes.get("axis", -1)
    if axis % rank != rank - 1:
        raise reader.refuse(node, "the axis must be the last one", axis)
    scale = reader.constant(node, 1)
    shift = reader.constant(node, 2, np.zeros_like(scale))
    values = [reader.value(node)]
    for role, array in (("gamma", scale), ("beta", shift)):
        name = reader.store(f"{node.output[0]}_{role}", array.reshape(-1))
        values.append(reader.add(node, "constant", (), {"value": name}))
    epsilon = str(attributes.get("epsilon", 1e-5))
    reader.finish(node, "mxnet.LayerNorm", values, axis="-1", eps=epsilon)


def _upsample(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    scales = attributes.get("scales")
    if scales is None:
        scales = reader.constant(node, 1 if len(node.input) < 3 else 2)
    wanted = [1, 1, scales[-1], scales[-1]] if scales is not None and len(scales) == 4 else None
    plain = wanted is not None and [*scales] == wanted and float(wanted[-1]).is_integer()
    if attributes.get("mode", "nearest") != "nearest" or not plain:
        what = "the scale must be one whole number for height and width, and the mode 'nearest'"
        raise reader.refuse(node, what, scales)
    reader.finish(
        node,
        "mxnet.UpSampling",
        [reader.value(node)],
        scale=str(int(scales[-1])),
        sample_type="nearest",
        num_args="1",
    )


def _resize(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    mode = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode")
    sizes = reader.constant(node, 3) if len(node.input) > 3 and node.input[3] else None
    if mode != ("linear", "align_corners") or sizes is None or len(sizes) != 4:
        _upsample(reader, node)
        return
    height, width = (int(side) for side in sizes[2:])
    reader.state_shape(node, [reader.shape(node)[1], height, width])
    reader.finish(
        node,
        "mxnet._contrib_BilinearResize2D",
        [reader.value(node)],
        height=str(height),
        width=str(width),
    )


LAYERS: dict[str, Reading] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "PRelu": _prelu,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "GlobalMaxPool": _global_pool("max"),
    "GlobalAveragePool": _global_pool("average"),
    "LayerNormalization": _layer_norm,
    "Upsample": _upsample,
    "Resize": _resize,
}
"""Mapping from an ONNX operator to the function that reads its nodes."""

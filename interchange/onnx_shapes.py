# SPDX-License-Identifier: Apache-2.0
"""Conversion of ONNX operators that rearrange values to nodes of a `Graph`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.onnx_reader import GraphReader, attributes_of
from interchange.onnx_shape_inference import BATCH

if TYPE_CHECKING:
    from onnx import NodeProto

    from interchange.onnx_read_layers import Reading


def _flatten(reader: GraphReader, node: NodeProto) -> None:
    axis = attributes_of(node).get("axis", 1)
    if axis != 1:
        raise reader.refuse(node, "the axis must be 1", axis)
    reader.finish(node, "flatten", [reader.value(node)])


def _reshape(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    shape = list(attributes["shape"] if "shape" in attributes else reader.constant(node, 1))
    before = reader.shape(node)
    features = math.prod(before[1:]) if None not in before[1:] else None
    # In a file that fixes the batch size at 1, a first dimension of 1 is the number of images.
    sides: list[int] = [
        0 if index == 0 and side in (BATCH, 1) else -1 if side == BATCH else int(side)
        for index, side in enumerate(shape)
    ]
    if sides and sides[0] == -1 and features == math.prod(sides[1:]):
        sides[0] = 0
    if sides[:1] == [0]:
        reader.state_shape(node, _known_sides(sides[1:], before, features))
    if len(sides) == 2 and sides[0] == 0 and sides[1] in (-1, features):
        reader.finish(node, "flatten", [reader.value(node)])
        return
    if sides.count(-1) > 1 or attributes.get("allowzero"):
        raise reader.refuse(node, "the shape must have at most one unknown dimension", sides)
    reader.finish(node, "reshape", [reader.value(node)], shape=tuple(sides))


def _known_sides(
    sides: list[int], before: tuple[Any, ...], features: int | None
) -> list[int | None]:
    """Return all dimensions but the first of a reshaped value; an unknown dimension is None."""
    copied = [before[index] if side == 0 else side for index, side in enumerate(sides, 1)]
    if copied.count(-1) != 1 or features is None or None in copied:
        return [None if side == -1 else side for side in copied]
    rest = math.prod(side for side in copied if side != -1)
    return [features // max(rest, 1) if side == -1 else side for side in copied]


def _transpose(reader: GraphReader, node: NodeProto) -> None:
    axes = attributes_of(node).get("perm", list(range(reader.rank(node)))[::-1])
    reader.finish(node, "transpose", [reader.value(node)], axes=tuple(axes))


def _axes(reader: GraphReader, node: NodeProto) -> list[int]:
    axes = attributes_of(node).get("axes")
    if axes is None:
        axes = reader.constant(node, 1)
    if axes is None:
        raise reader.refuse(node, "the axes must be stated", "none")
    return [int(axis) for axis in axes]


def _squeeze(reader: GraphReader, node: NodeProto) -> None:
    rank = reader.rank(node)
    axes = tuple(axis % rank for axis in _axes(reader, node))
    if rank == 4 and sorted(axes) == [2, 3]:
        reader.finish(node, "flatten", [reader.value(node)])
        return
    reader.finish(node, "squeeze", [reader.value(node)], axis=axes)


def _unsqueeze(reader: GraphReader, node: NodeProto) -> None:
    axes = _axes(reader, node)
    rank = reader.rank(node) + len(axes)
    value = reader.value(node)
    *first, last = sorted(axis % rank for axis in axes)
    for axis in first:
        value = reader.add(node, "expand_dims", [value], axis=axis)
    reader.finish(node, "expand_dims", [value], axis=last)


def _concat(reader: GraphReader, node: NodeProto) -> None:
    values = [reader.value(node, index) for index in range(len(node.input))]
    axis = attributes_of(node)["axis"] % reader.rank(node)
    reader.finish(node, "concat", values, axis=axis)


def _split(reader: GraphReader, node: NodeProto) -> None:
    attributes, parts = attributes_of(node), len(node.output)
    sizes = attributes.get("split")
    if sizes is None:
        sizes = reader.constant(node, 1)
    if sizes is not None and len({int(size) for size in sizes}) != 1:
        raise reader.refuse(node, "the parts must have equal sizes", list(sizes))
    axis = attributes.get("axis", 0)
    value = reader.value(node)
    if parts == 1:
        reader.same_as(node, value)
        return
    reader.finish(node, "split", [value], axis=axis, parts=parts, squeeze=False)


def _slice(reader: GraphReader, node: NodeProto) -> None:
    attributes: dict[str, Any] = attributes_of(node)

    def numbers(name: str, index: int, default: Any) -> list[int]:
        stated = attributes.get(name)
        found = reader.constant(node, index, default) if stated is None else stated
        return [int(number) for number in found]

    starts, ends = numbers("starts", 1, None), numbers("ends", 2, None)
    axes = numbers("axes", 3, range(len(starts)))
    steps = numbers("steps", 4, [1] * len(starts))
    if any(step != 1 for step in steps):
        raise reader.refuse(node, "the steps must be 1", steps)
    value = reader.value(node)
    limit = np.iinfo(np.int32).max
    for number, (axis, begin, end) in enumerate(zip(axes, starts, ends, strict=True)):
        settings: dict[str, Any] = {
            "axis": axis,
            "begin": begin,
            "end": None if end >= limit else end,
        }
        if number == len(axes) - 1:
            reader.finish(node, "slice", [value], **settings)
        else:
            value = reader.add(node, "slice", [value], **settings)


def _gather(reader: GraphReader, node: NodeProto) -> None:
    index = reader.constant(node, 1)
    if index.size != 1:
        raise reader.refuse(node, "the index must be one number", f"{index.size} numbers")
    axis, position = attributes_of(node).get("axis", 0), int(index.reshape(-1)[0])
    end = None if position == -1 else position + 1
    if index.ndim:
        reader.finish(node, "slice", [reader.value(node)], axis=axis, begin=position, end=end)
        return
    part = reader.add(node, "slice", [reader.value(node)], axis=axis, begin=position, end=end)
    reader.finish(node, "squeeze", [part], axis=axis)


def _pad(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    pads = attributes.get("pads")
    if pads is None:
        pads = [int(side) for side in reader.constant(node, 1)]
    value = reader.constant(node, 2, np.float32(attributes.get("value", 0.0)))
    if not any(pads):
        reader.same_as(node, reader.value(node))
        return
    mode = attributes.get("mode", "constant")
    if len(pads) != 8 or any(pads[axis] for axis in (0, 1, 4, 5)) or mode != "constant":
        raise reader.refuse(node, "the padding must be constant, in rows and columns only", pads)
    widths = tuple(int(pads[axis + side]) for axis in range(4) for side in (0, 4))
    reader.finish(
        node,
        "mxnet.Pad",
        [reader.value(node)],
        mode="constant",
        pad_width=str(widths),
        constant_value=repr(float(np.reshape(value, -1)[0])),
    )


def _tile(reader: GraphReader, node: NodeProto) -> None:
    repeats = tuple(int(count) for count in reader.constant(node, 1))
    if any(count < 1 for count in repeats) or repeats[:1] != (1,):
        raise reader.refuse(node, "the images must not be repeated", repeats)
    reader.finish(node, "tile", [reader.value(node)], repeats=repeats)


SHAPES: dict[str, Reading] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Tile": _tile,
}
"""Mapping from an ONNX operator to the function that reads its nodes."""

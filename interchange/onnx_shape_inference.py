# SPDX-License-Identifier: Apache-2.0
"""Shapes of the values of an ONNX model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, TensorProto, helper, shape_inference

BATCH = "N"
"""Value that stands for the number of images in a shape, because this number is free."""
MAX_STATED_SHAPES = 100
"""Largest number of shapes that `ShapeInference.state` adds; each one repeats the inference."""
_MAX_SHAPE_ELEMENTS = 1000


class ShapeInference:
    """Shapes that ONNX infers from the size of the images.

    Parameters
    ----------
    model
        Model whose shapes are inferred; the model is not changed.
    input_name
        Name of the input of images.
    image_size
        (height, width) of the images in pixels.
    """

    def __init__(self, model: ModelProto, input_name: str, image_size: tuple[int, int]) -> None:
        self._model = _without_weights(model)
        self._stated = 0
        for value in self._model.graph.input:
            if value.name == input_name:
                batch, _, *sides = value.type.tensor_type.shape.dim
                if not batch.dim_value:
                    batch.dim_param = BATCH
                for side, size in zip(sides, image_size, strict=True):
                    side.dim_value = size
        self.known: dict[str, tuple[Any, ...]] = {}
        """Shape of each value; a dimension is a number, `BATCH`, or None if it is unknown."""
        self._infer()

    def state(self, name: str, sides: Sequence[int | None]) -> None:
        """Add the shape (`BATCH`, *sides) of a value whose shape ONNX cannot infer.

        After `MAX_STATED_SHAPES` additions, the shape stays unknown.
        """
        if name in self.known or self._stated == MAX_STATED_SHAPES:
            return
        self._stated += 1
        shape = [BATCH, *sides]
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        self._model.graph.value_info.append(info)
        self._infer()

    def _infer(self) -> None:
        try:
            inferred = shape_inference.infer_shapes(self._model, data_prop=True)
        except shape_inference.InferenceError:
            return
        graph = inferred.graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                sides = [side.dim_value or None for side in value.type.tensor_type.shape.dim]
                self.known[value.name] = (BATCH, *sides[1:]) if sides else ()


def _without_weights(model: ModelProto) -> ModelProto:
    """Return a copy of a model without ``value_info`` and without the elements of large tensors."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for tensor in copy.graph.initializer:
        if math.prod(tensor.dims) > _MAX_SHAPE_ELEMENTS:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "int64_data"):
                tensor.ClearField(field)
    return copy

# SPDX-License-Identifier: Apache-2.0
"""Randomly change model files: their raw bytes, or the content of a zip file, header or graph."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Sequence

import onnx
from google.protobuf.message import DecodeError

from tools.fuzzing.mutation import MAX_BYTES, mutate

_INSIDE_FRACTION = 0.7
_LENGTH_BYTES = 8


def mutate_model(rng: random.Random, name: str, data: bytes, tokens: Sequence[bytes]) -> bytes:
    """Return a changed copy of a model file.

    In three formats, most changes are inside the container, which itself stays readable: in a
    member of a zip file, in the header of a .safetensors file, or in the graph of an .onnx file.
    All other changes are in the raw bytes.

    Parameters
    ----------
    rng
        Source of all random choices.
    name
        Name of the file; its suffix states the format.
    data
        Content of the file.
    tokens
        Byte strings with a meaning in the formats, such as keywords; some changes insert them.
    """
    if rng.random() < _INSIDE_FRACTION:
        if data.startswith(b"PK"):
            return _change_member(rng, data, tokens)
        if name.endswith(".safetensors"):
            return _change_header(rng, data, tokens)
        if name.endswith(".onnx"):
            return _change_graph(rng, data)
    return mutate(rng, data, tokens, max_bytes=len(data) + MAX_BYTES)


def _change_member(rng: random.Random, data: bytes, tokens: Sequence[bytes]) -> bytes:
    """Change or delete one member of a zip file, in most cases the pickle data.pkl."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    if rng.random() < 0.2:
        name = rng.choice([*members])
    if rng.random() < 0.1:
        del members[name]
    else:
        members[name] = mutate(rng, members[name], tokens)
    file = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    return file.getvalue()


def _change_header(rng: random.Random, data: bytes, tokens: Sequence[bytes]) -> bytes:
    """Change the JSON header of a .safetensors file, and adapt the field that states its length."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = mutate(rng, data[_LENGTH_BYTES:end], tokens)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + data[end:]


def _change_graph(rng: random.Random, data: bytes) -> bytes:
    """Make one to four random changes to the nodes, tensors and inputs of an ONNX graph."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return mutate(rng, data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_GRAPH_CHANGES)(rng, model.graph)
    return model.SerializeToString()


def _number(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 3, -1, 7, 1 << 16, 1 << 31, (1 << 63) - 1, -(1 << 63)))


def _change_attribute(rng: random.Random, graph: onnx.GraphProto) -> None:
    attributes = [each for node in graph.node for each in node.attribute]
    if not attributes:
        return
    attribute = rng.choice(attributes)
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = _number(rng)
    elif rng.random() < 0.3:
        del attribute.ints[:]
        attribute.type = rng.choice((1, 2, 3, 4, 6, 7, 8))
    else:
        attribute.i, attribute.f = _number(rng), rng.choice((float("nan"), 0.0, -1.0, 1e38))


def _change_tensor(rng: random.Random, graph: onnx.GraphProto) -> None:
    if not graph.initializer:
        return
    tensor = rng.choice(graph.initializer)
    choice = rng.randrange(4)
    if choice == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _number(rng)
    elif choice == 1:
        tensor.data_type = rng.choice((0, 1, 2, 7, 8, 10, 11, 16, 99))
    elif choice == 2:
        tensor.raw_data = mutate(rng, tensor.raw_data)
    else:
        graph.initializer.remove(tensor)


def _change_node(rng: random.Random, graph: onnx.GraphProto) -> None:
    if not graph.node:
        return
    place = rng.randrange(len(graph.node))
    node = graph.node[place]
    choice = rng.randrange(5)
    if choice == 0:
        del graph.node[place]
    elif choice == 1:
        node.op_type = rng.choice(("Conv", "Gemm", "Add", "Reshape", "PRelu", "Loop", "If", ""))
    elif choice == 2 and node.input:
        names = [name for each in graph.node for name in (*each.input, *each.output)]
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
    elif choice == 3 and node.output:
        node.output[0] = rng.choice(graph.node).output[0]
    else:
        graph.node.insert(rng.randrange(len(graph.node)), node)


def _change_input(rng: random.Random, graph: onnx.GraphProto) -> None:
    if not graph.input:
        return
    dims = rng.choice(graph.input).type.tensor_type.shape.dim
    if dims and rng.random() < 0.8:
        dims[rng.randrange(len(dims))].dim_value = _number(rng)
    else:
        del graph.input[:]


_GRAPH_CHANGES = (_change_attribute, _change_tensor, _change_node, _change_input)

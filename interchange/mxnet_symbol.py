# SPDX-License-Identifier: Apache-2.0
"""Read MXNet models such as InsightFace's: ``PREFIX-symbol.json``, ``PREFIX-<epoch>.params``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.graph import Graph, Node, Output
from interchange.model import InterchangeError
from interchange.mxnet_attributes import Unsupported, parse
from interchange.mxnet_operators import OPAQUE, find_operator
from mxnet_arrays import ArrayFileError, read_arrays
from nets.symbol_json import SymbolError, load_symbol, node_attributes

if TYPE_CHECKING:
    import mxnet as mx

EMBEDDING = "fc1"
"""Name of the node of the embedding in InsightFace's symbols."""
CENTRES = "fc7_weight"
"""Name of the class centres (C, E) in InsightFace's parameter files."""


@dataclass(frozen=True)
class SymbolFiles:
    """Content of the files of an MXNet model."""

    graph: Graph
    """Graph from images to embeddings.  If the symbol scales its input, the graph does so too."""
    centres: np.ndarray | None
    """Class centres (C, E) float32; None if the parameter file contains none."""
    notices: tuple[str, ...]
    symbol: mx.sym.Symbol
    """Symbol of the embedding."""
    arrays: Mapping[str, np.ndarray]
    """All arrays of the parameter file, by name.

    The arrays include the values of all variables of the symbol except the images."""


def find_symbol_files(prefix: str | Path) -> tuple[Path, Path]:
    """Return the paths of the symbol file and of the parameter file of the highest epoch.

    ``prefix`` may also be the path of a symbol file or of a parameter file.  A parameter file that
    is named in this way is returned, whatever its epoch.

    Raises
    ------
    InterchangeError
        If a file is missing.
    """
    path = Path(prefix)
    chosen = re.fullmatch(r"(.*)-\d{4,}\.params", path.name)
    stem = path.name.removesuffix("-symbol.json") if not chosen else chosen[1]
    symbol = path.with_name(f"{stem}-symbol.json")
    if not symbol.is_file():
        raise InterchangeError(
            f"{symbol}: the file of the symbol is missing, got no such file; pass the prefix of "
            "PREFIX-symbol.json and PREFIX-0000.params"
        )
    if chosen:
        return symbol, path
    pattern = re.compile(re.escape(stem) + r"-(\d{4,})\.params")
    found = {
        int(match[1]): each for each in symbol.parent.iterdir()
        if (match := pattern.fullmatch(each.name))
    }  # fmt: skip
    if not found:
        raise InterchangeError(
            f"{path.with_name(stem)}-0000.params: the file of the parameters is missing, got "
            f"{symbol.name} alone; copy the .params file into the folder of the symbol"
        )
    return symbol, found[max(found)]


def read_symbol_files(prefix: str | Path) -> SymbolFiles:
    """Read the graph, its parameters and the class centres of an MXNet model.

    The graph ends at the output ``fc1_output`` if the symbol has it, so a symbol for training gives
    the same graph as a symbol for deployment.

    Raises
    ------
    InterchangeError
        If a file is missing or damaged; if a parameter is missing, has another shape than the
        symbol needs or belongs to no node; or if the symbol has several outputs and no
        ``fc1_output``.
    """
    symbol_path, parameters_path = find_symbol_files(prefix)
    try:
        text = symbol_path.read_text(encoding="utf-8")
        arrays = {
            re.sub(r"^(arg|aux):", "", name): array
            for name, array in read_arrays(parameters_path).items()
        }
        symbol = load_symbol(text, str(symbol_path))
    except UnicodeDecodeError:
        raise InterchangeError(
            f"{symbol_path}: a symbol must be JSON text in UTF-8, got other bytes; use an "
            "undamaged symbol file that MXNet has saved"
        ) from None
    except (ArrayFileError, SymbolError, OSError) as error:
        raise InterchangeError(str(error)) from None
    known = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    embedding = _embedding(symbol, str(symbol_path))
    graph = symbol_graph(embedding, arrays, str(parameters_path), str(symbol_path))
    used = set(graph.tensors)
    centres = arrays.get(CENTRES)
    notices = []
    beyond = sorted({*arrays} - used - {CENTRES})
    for name in beyond:
        if name not in known and not name.startswith("fc7"):
            raise InterchangeError(
                f"{parameters_path}: every tensor must belong to a layer of {symbol_path.name}, "
                f"got {name!r} of shape {arrays[name].shape}; use the parameters that belong to "
                "this symbol"
            )
    if beyond:
        notices.append(f"tensors after the embedding are dropped: {', '.join(beyond)}")
    if centres is not None:
        centres = centres.astype(np.float32)
    return SymbolFiles(graph, centres, tuple(notices), embedding, arrays)


def _embedding(symbol: mx.sym.Symbol, where: str) -> mx.sym.Symbol:
    """Return the symbol of the embedding: ``fc1_output``, or else the only output."""
    internals = symbol.get_internals()
    if f"{EMBEDDING}_output" in internals.list_outputs():
        return internals[f"{EMBEDDING}_output"]
    outputs = symbol.list_outputs()
    if len(outputs) == 1:
        return symbol
    raise InterchangeError(
        f"{where}: the symbol must have exactly one output, or an output named {EMBEDDING}_output, "
        f"got {', '.join(outputs[:5])}; save only the symbol of the embedding"
    )


def symbol_graph(
    symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray], where: str, symbol_where: str = ""
) -> Graph:
    """Convert a symbol with one output to a `Graph`.

    Parameters
    ----------
    symbol
        Symbol from one variable of images to embeddings.
    arrays
        Values of all other variables, by name.
    where, symbol_where
        Path of the parameters and path of the symbol, for error messages.

    Raises
    ------
    InterchangeError
        If a parameter is missing, is not numeric, or has another shape than the symbol needs.
    """
    content = json.loads(symbol.tojson())
    variables = {n["name"]: node_attributes(n) for n in content["nodes"] if n["op"] == "null"}
    missing = [name for name in variables if name not in arrays]
    inputs = [name for name in missing if name == "data"] or missing[:1]
    if len(missing) != 1:
        wrong = next((name for name in missing if name not in inputs), None)
        raise InterchangeError(
            f"{where}: every layer of the symbol needs its tensors, got no {wrong!r}; use the "
            "parameters that belong to this symbol"
            if wrong
            else f"{symbol_where or where}: the symbol must have an input of images, got none; use "
            "the symbol of a network"
        )
    size = parse(variables[inputs[0]].get("__shape__", ""))
    known = isinstance(size, tuple) and len(size) == 4 and min(size[2:]) > 0
    builder = _Builder(content["nodes"], arrays, inputs[0])
    graph = Graph(
        inputs=(inputs[0],),
        nodes=tuple(builder.nodes()),
        outputs=tuple(builder.value(*head[:2]) for head in content["heads"]),
        tensors={},
        image_size=size[2:] if known else None,
    )
    names = {name for node in graph for name in node.tensors.values()}
    tensors = {name: _as_float32(name, arrays[name], where) for name in variables if name in names}
    for node in graph:  # BatchNorm ignores the stored gamma if fix_gamma is true
        if node.op == "batch_norm" and node.attributes["fixed_scale"]:
            gamma = node.tensors["gamma"]
            tensors[gamma] = np.ones_like(tensors[gamma])
    return _check_shapes(Graph(**{**vars(graph), "tensors": tensors}), where)


def _as_float32(name: str, array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise InterchangeError(
            f"{where}: {name!r} must contain floating-point numbers, got {array.dtype}; use a file "
            "with float32 or float16 weights"
        )
    return array.astype(np.float32, copy=False)


def _check_shapes(graph: Graph, where: str) -> Graph:
    """Check that the shapes of the tensors of each node fit each other; return the graph."""
    for node in graph:
        shapes = {role: graph.tensors[name].shape for role, name in node.tensors.items()}
        rank = {"conv": 4, "dense": 2}.get(node.op)
        if rank and len(shapes["weight"]) != rank:
            _wrong_shape(where, node.tensors["weight"], shapes["weight"], f"{rank} dimensions")
        kernel = node.attributes.get("kernel")
        if node.op == "conv" and shapes["weight"][2:] != kernel:
            _wrong_shape(where, node.tensors["weight"], shapes["weight"], f"a kernel of {kernel}")
        if node.op == "constant" or not shapes:
            continue
        first = next(iter(shapes.values()))
        for role, shape in shapes.items():
            if role != "weight" and shape not in (first[:1], (1,)):
                _wrong_shape(where, node.tensors[role], shape, f"the shape {first[:1]}")
    return graph


def _wrong_shape(where: str, name: str, shape: tuple[int, ...], wanted: str) -> None:
    raise InterchangeError(
        f"{where}: {name!r} must have {wanted}, got the shape {shape}; use the parameters that "
        "belong to this symbol"
    )


class _Builder:
    """Converter of the nodes of a symbol's JSON to nodes of a `Graph`."""

    def __init__(
        self, content: list[dict[str, Any]], arrays: Mapping[str, np.ndarray], data: str
    ) -> None:
        self._content, self._arrays, self._data = content, arrays, data
        self._constants: dict[str, Node] = {}
        # MXNet allows two nodes of the same name, a Graph does not.  A number makes names unique.
        counts = Counter(node["name"] for node in content)
        self._names = [
            node["name"] if counts[node["name"]] == 1 else f"{node['name']}:{index}"
            for index, node in enumerate(content)
        ]

    def value(self, index: int, output: int) -> Output:
        name = self._content[index]["name"]
        if self._content[index]["op"] == "null" and name != self._data:
            constant = f"{name}:constant"
            self._constants.setdefault(name, Node(constant, "constant", (), {"value": name}))
            return Output(constant)
        return Output(name if name == self._data else self._names[index], output)

    def nodes(self) -> list[Node]:
        made: list[Node] = []
        for index, node in enumerate(self._content):
            if node["op"] == "null":
                continue
            before = set(self._constants)
            new = replace(self._node(node), name=self._names[index])
            made += [self._constants[name] for name in self._constants if name not in before]
            made.append(new)
        return made

    def _node(self, node: dict[str, Any]) -> Node:
        texts = {k: v for k, v in node_attributes(node).items() if not k.startswith("__")}
        attributes = {name: parse(text) for name, text in texts.items()}
        operator = find_operator(node["op"], attributes)
        tensors = self._tensors(node, operator.tensors) if operator else None
        if operator is None or tensors is None:
            return self._opaque(node, texts)
        if operator.op == "dense" and attributes.get("flatten", True) is False:
            return self._opaque(node, texts)
        try:
            own = operator.read(attributes)
        except Unsupported:
            return self._opaque(node, texts)
        values = node["inputs"] if not operator.tensors else node["inputs"][:1]
        inputs = tuple(self.value(*entry[:2]) for entry in values)
        return Node(node["name"], operator.op, inputs, tensors, own)

    def _tensors(self, node: dict[str, Any], roles: tuple[str, ...]) -> dict[str, str] | None:
        """Map roles to names of parameters; return None if a parameter is the output of a node."""
        given = [self._content[entry[0]] for entry in node["inputs"][1:]] if roles else []
        if any(each["name"] not in self._arrays or each["op"] != "null" for each in given):
            return None
        return dict(zip(roles, (each["name"] for each in given), strict=False))

    def _opaque(self, node: dict[str, Any], texts: dict[str, str]) -> Node:
        inputs = tuple(self.value(*entry[:2]) for entry in node["inputs"])
        return Node(node["name"], f"{OPAQUE}{node['op']}", inputs, {}, texts)

# SPDX-License-Identifier: Apache-2.0
"""Collect all MXNet operators of nets and heads, with the inputs they receive in training.

Each net and head is traced, and its graph is computed once on the CPU.  Each node becomes a case:
an operator, its attributes and the values of its inputs.  Operators of a new head are included
automatically.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

import ops
from heads import HEADS, build_head
from nets.iresnet import IResNet
from nets.mobilefacenet import MobileFaceNet

PEOPLE, IMAGES_PER_PERSON, EMBEDDING_SIZE, CLASSES = 6, 3, 16, 20
IMAGE_SIZE, IMAGES = (48, 48), 4
DEVICES = ("cpu", "gpu")
"""Device types for which to trace nets and heads: some blocks use other operators on a GPU."""
MXNET_VERSION = 10901
"""Version of MXNet (1.9.1) to write into graphs; MXNet would convert graphs of older versions."""


class Case(NamedTuple):
    """One operator of a graph, with its attributes and the values of its inputs."""

    op: str
    attributes: dict[str, str]
    inputs: list[np.ndarray]
    place: str
    """Net or head that contains the operator."""

    def symbol(self) -> mx.sym.Symbol:
        """Return a graph with only this operator; its inputs are named i0, i1, ..."""
        return _symbol(self.op, self.attributes, len(self.inputs))


def cases() -> Iterator[Case]:
    """Yield each operator of nets and heads once per combination of attributes and input shapes."""
    seen: set[Any] = set()
    for place, graph, values in graphs():
        nodes = json.loads(graph.tojson())["nodes"]
        kinds = place, str([(node["op"], _attributes(node)) for node in nodes])
        # The graph of a net for GPUs may equal the graph for the CPU.
        if kinds in seen:
            continue
        seen.add(kinds)
        for case in _nodes(place, graph, values):
            shapes = tuple((value.shape, str(value.dtype)) for value in case.inputs)
            key = (case.op, tuple(sorted(case.attributes.items())), shapes)
            if key not in seen:
                seen.add(key)
                yield case


def graphs() -> Iterator[tuple[str, mx.sym.Symbol, dict[str, np.ndarray]]]:
    """Yield each net and head as a triple (name, graph, values of arguments and states by name)."""
    random = np.random.default_rng(5)
    image = random.uniform(-1, 1, (IMAGES, 3, *IMAGE_SIZE)).astype(np.float32)
    count = PEOPLE * IMAGES_PER_PERSON
    batch = {
        "embedding": random.normal(size=(count, EMBEDDING_SIZE)).astype(np.float32),
        "label": np.repeat(random.permutation(CLASSES)[:PEOPLE], IMAGES_PER_PERSON).astype(
            np.float32
        ),
        "margin": np.array([0.7], np.float32),
    }
    for device in DEVICES:
        ops.use("plain", device)
        nets = {
            "mobilefacenet": MobileFaceNet(IMAGE_SIZE, width=0.125, embedding_size=EMBEDDING_SIZE),
            "iresnet": IResNet(
                (1, 1, 1, 1),
                EMBEDDING_SIZE,
                dropout=0.4,
                channels=(8, 16, 24, 32),
                image_size=IMAGE_SIZE,
            ),
        }
        for name, net in nets.items():
            with mx.autograd.train_mode():
                yield f"net {name}", net(mx.sym.var("image")), {"image": image, **_parameters(net)}
        for name in HEADS:
            head = build_head(name, CLASSES, EMBEDDING_SIZE)
            inputs = [mx.sym.var(key) for key in batch]
            with mx.autograd.train_mode():
                graph = mx.sym.Group(list(head(*inputs)))
            yield f"head {name}", graph, {**batch, **_parameters(head)}
    ops.use("plain")


def _parameters(block: mx.gluon.Block) -> dict[str, np.ndarray]:
    mx.random.seed(7)
    block.initialize(mx.init.Xavier(), force_reinit=True)
    return {name: p.data().asnumpy() for name, p in block.collect_params().items()}


def _nodes(place: str, graph: mx.sym.Symbol, values: Mapping[str, np.ndarray]) -> Iterator[Case]:
    """Compute a graph on the CPU; yield its operators with the values of their inputs."""
    inside = graph.get_internals()
    nodes = json.loads(inside.tojson())["nodes"]
    counts = [1 if node["op"] == "null" else _outputs(node) for node in nodes]
    entries: list[int] = []
    first = 0
    for node, count in zip(nodes, counts, strict=True):
        entries += [] if node["op"] == "null" else range(first, first + count)
        first += count
    computed = iter(forward(mx.sym.Group([inside[i] for i in entries]), values, mx.cpu())[0])
    outputs: list[list[np.ndarray]] = []
    for node, count in zip(nodes, counts, strict=True):
        if node["op"] == "null":
            outputs.append([values[node["name"]]])
            continue
        inputs = [outputs[index][output] for index, output, *_ in node["inputs"]]
        outputs.append([next(computed) for _ in range(count)])
        yield Case(node["op"], _attributes(node), inputs, place)


def _outputs(node: Mapping[str, Any]) -> int:
    """Return the number of outputs of an operator, without hidden outputs."""
    return len(_symbol(node["op"], _attributes(node), len(node["inputs"])).list_outputs())


def _attributes(node: Mapping[str, Any]) -> dict[str, str]:
    # Gluon adds attributes that begin with two underscores, which the operator does not know.
    attributes = node.get("attrs", node.get("attr", {}))
    return {key: value for key, value in attributes.items() if not key.startswith("__")}


def _symbol(op: str, attributes: Mapping[str, str], inputs: int) -> mx.sym.Symbol:
    nodes: list[dict[str, Any]] = [
        {"op": "null", "name": f"i{index}", "inputs": []} for index in range(inputs)
    ]
    arguments = [[index, 0, 0] for index in range(inputs)]
    nodes.append({"op": op, "name": "node", "attrs": dict(attributes), "inputs": arguments})
    heads = [[inputs, 0, 0]]
    graph = {"nodes": nodes, "arg_nodes": list(range(inputs)), "heads": heads}
    graph["attrs"] = {"mxnet_version": ["int", MXNET_VERSION]}
    # The entry "heads" selects only the first output; get_internals() gives all outputs.
    inside = mx.sym.load_json(json.dumps(graph)).get_internals()
    names = [name for name in inside.list_outputs() if name.startswith("node")]
    return mx.sym.Group([inside[name] for name in names])


def forward(
    graph: mx.sym.Symbol,
    values: Mapping[str, np.ndarray],
    ctx: mx.Context,
    gradients: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Compute a graph in training mode; return its outputs and the gradients of its arguments.

    Parameters
    ----------
    graph
        Graph to compute.
    values
        Arguments and states by name.
    ctx
        Device.
    gradients
        Gradients of the outputs; None skips the backward pass.
    """
    names = graph.list_inputs()
    arrays = [_array(values[name], ctx) for name in names]
    wanted = set() if gradients is None else set(graph.list_arguments())
    for name, array in zip(names, arrays, strict=True):
        if name in wanted:
            array.attach_grad()
    mx.random.seed(11, ctx=ctx)
    compute = mx.nd.CachedOp(graph)  # A hybridized block computes its graph with CachedOp too.
    with mx.autograd.record() if wanted else mx.autograd.train_mode():
        found = compute(*arrays)
    outputs = found if isinstance(found, list) else [found]
    if gradients is not None:
        mx.autograd.backward(outputs, [_array(gradient, ctx) for gradient in gradients])
    computed = {n: a.grad for n, a in zip(names, arrays, strict=True) if n in wanted}
    return [a.asnumpy() for a in outputs], {n: a.asnumpy() for n, a in computed.items()}


def _array(value: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    return mx.nd.array(value, ctx=ctx, dtype=value.dtype)

# SPDX-License-Identifier: Apache-2.0
"""Every MXNet operator of the nets and heads, with the inputs that it really gets.

Nets and heads are traced, their graphs computed once on the CPU, and each node becomes a case: one
operator, its attributes, the values of its inputs.  So what is compared on two devices is what
training computes, and an operator that a head takes up later is in it without being listed.
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

PEOPLE, EACH, SIZE, CLASSES = 6, 3, 16, 20
"""Batch of a head: PEOPLE with EACH images; length of an embedding; number of classes."""
IMAGE_SIZE, IMAGES = (48, 48), 4
DEVICES = ("cpu", "gpu")
"""Types of device that graphs are traced for: blocks may take other operators on a GPU."""


VERSION = 10901
"""Of MXNet, as its graphs have it: that of another one would be converted."""


class Case(NamedTuple):
    """One operator and its inputs."""

    op: str
    attributes: dict[str, str]
    inputs: list[np.ndarray]
    place: str
    """The net or head that it was found in."""

    def symbol(self) -> mx.sym.Symbol:
        """Return the graph of the operator alone; its inputs are i0, i1, ..."""
        return _symbol(self.op, self.attributes, len(self.inputs))


def cases() -> Iterator[Case]:
    """Yield the operators of all nets and heads; of equal ones with equal shapes the first."""
    seen: set[Any] = set()
    for place, graph, values in graphs():
        nodes = json.loads(graph.tojson())["nodes"]
        kinds = place, str([(node["op"], _attributes(node)) for node in nodes])
        if kinds in seen:  # it is the same for both types of device
            continue
        seen.add(kinds)
        for case in _nodes(place, graph, values):
            shapes = tuple((value.shape, str(value.dtype)) for value in case.inputs)
            key = (case.op, tuple(sorted(case.attributes.items())), shapes)
            if key not in seen:
                seen.add(key)
                yield case


def graphs() -> Iterator[tuple[str, mx.sym.Symbol, dict[str, np.ndarray]]]:
    """Yield (place, graph, values of its arguments and states) of every net and head."""
    random = np.random.default_rng(5)
    image = random.uniform(-1, 1, (IMAGES, 3, *IMAGE_SIZE)).astype(np.float32)
    count = PEOPLE * EACH
    batch = {
        "embedding": random.normal(size=(count, SIZE)).astype(np.float32),
        "label": np.repeat(random.permutation(CLASSES)[:PEOPLE], EACH).astype(np.float32),
        "margin": np.array([0.7], np.float32),
    }
    for device in DEVICES:
        ops.use("plain", device)
        nets = {
            "mobilefacenet": MobileFaceNet(width=0.125, embedding_size=SIZE, image_size=IMAGE_SIZE),
            "iresnet": IResNet(
                (1, 1, 1, 1), SIZE, dropout=0.4, channels=(8, 16, 24, 32), image_size=IMAGE_SIZE
            ),
        }
        for name, net in nets.items():
            with mx.autograd.train_mode():
                yield f"net {name}", net(mx.sym.var("image")), {"image": image, **_parameters(net)}
        for name in HEADS:
            head = build_head(name, CLASSES, SIZE)
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
    """Yield the operators of a graph with the values that they get in it."""
    inside = graph.get_internals()
    nodes = json.loads(inside.tojson())["nodes"]
    counts = [1 if node["op"] == "null" else _outputs(node) for node in nodes]
    entries, first = [], 0
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
    """Return how many outputs of an operator other operators may take."""
    return len(_symbol(node["op"], _attributes(node), len(node["inputs"])).list_outputs())


def _attributes(node: Mapping[str, Any]) -> dict[str, str]:
    # What Gluon keeps for itself is no attribute of the operator.
    attributes = node.get("attrs", node.get("attr", {}))
    return {key: value for key, value in attributes.items() if not key.startswith("__")}


def _symbol(op: str, attributes: Mapping[str, str], inputs: int) -> mx.sym.Symbol:
    nodes: list[dict[str, Any]] = [
        {"op": "null", "name": f"i{place}", "inputs": []} for place in range(inputs)
    ]
    arguments = [[place, 0, 0] for place in range(inputs)]
    nodes.append({"op": op, "name": "node", "attrs": dict(attributes), "inputs": arguments})
    heads = [[inputs, 0, 0]]
    graph = {"nodes": nodes, "arg_nodes": list(range(inputs)), "heads": heads}
    graph["attrs"] = {"mxnet_version": ["int", VERSION]}
    # The graph names the first output; those that can be seen are found inside.
    inside = mx.sym.load_json(json.dumps(graph)).get_internals()
    names = [name for name in inside.list_outputs() if name.startswith("node")]
    return mx.sym.Group([inside[name] for name in names])


def forward(
    graph: mx.sym.Symbol,
    values: Mapping[str, np.ndarray],
    ctx: mx.Context,
    gradients: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Compute a graph in training mode; return its outputs, and the gradients of its arguments.

    Parameters
    ----------
    graph
        What is computed.
    values
        Arguments and states by name.
    ctx
        Device.
    gradients
        Of the outputs; None computes no backward pass.
    """
    names = graph.list_inputs()
    arrays = [_array(values[name], ctx) for name in names]
    wanted = set() if gradients is None else set(graph.list_arguments())
    for name, array in zip(names, arrays, strict=True):
        if name in wanted:
            array.attach_grad()
    mx.random.seed(11, ctx=ctx)
    compute = mx.nd.CachedOp(graph)  # as a hybridized block has it
    with mx.autograd.record() if wanted else mx.autograd.train_mode():
        found = compute(*arrays)
    outputs = found if isinstance(found, list) else [found]
    if gradients is not None:
        mx.autograd.backward(outputs, [_array(gradient, ctx) for gradient in gradients])
    slopes = {n: a.grad for n, a in zip(names, arrays, strict=True) if n in wanted}
    return [a.asnumpy() for a in outputs], {n: a.asnumpy() for n, a in slopes.items()}


def _array(value: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    return mx.nd.array(value, ctx=ctx, dtype=value.dtype)

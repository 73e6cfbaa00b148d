# SPDX-License-Identifier: Apache-2.0
"""Match the graph of another project's network against the graph of one of our networks.

The module traverses both graphs together, from the output to the input.  Two operations match if
their attributes and the shapes of their tensors agree.  Names do not matter.  Four differences are
converted exactly:

- A bias before a batch normalisation is subtracted from the running mean.
- If the epsilons differ, the difference is added to the running variance.
- A gamma that the other network fixes at 1 becomes a tensor of ones.
- If the other network has folded a batch normalisation into a convolution or dense layer, our batch
  normalisation only adds the bias of that layer: gamma = 1, beta = bias, running_mean = 0 and
  running_var = 1 - epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interchange.model import InterchangeError
from interchange.structure import (
    COMMUTATIVE,
    WEIGHTED,
    Structure,
    compared_attributes,
    see_through,
    structures,
)

if TYPE_CHECKING:
    from interchange.graph import Graph, Node, Output


@dataclass(frozen=True)
class Match:
    """Parameters with which our network computes the same function as the other network."""

    parameters: dict[str, np.ndarray]
    """float32 parameters, keyed by their names in our network."""
    unfolded: tuple[str, ...] = ()
    """Names of our batch normalisations, for example "stem.norm", that the other network has folded
    into the layer before.  Each has gamma 1, running_mean 0, running_var 1 - epsilon and the bias
    of that layer as beta.  If the output of the layer without its bias has mean m and variance v,
    the values gamma = sqrt(v + epsilon), beta = bias + m, running_mean = m and running_var = v
    compute the same function.  They are a better start for training, see
    `interchange.norm_statistics`."""


def match_graphs(ours: Graph, theirs: Graph, where: str) -> Match:
    """Match two graphs and return the parameters of our network.

    Parameters
    ----------
    ours
        Graph of one of our networks from `interchange.net_graph`; only the shapes of its tensors
        are used.
    theirs
        Graph whose input is normalised as our networks need it, see `interchange.input_contract`.
    where
        Path of the file of the other network, for error messages.

    Raises
    ------
    InterchangeError
        If the graphs differ; the message names the first layer or tensor that does not fit, seen
        from the output.
    """
    return _Matcher(ours, theirs, where).match()


class _Matcher:
    def __init__(self, ours: Graph, theirs: Graph, where: str) -> None:
        self.ours, self.theirs, self.where = ours, theirs, where
        self.our_nodes, self.their_nodes = ours.by_name(), theirs.by_name()
        self.our_structures, self.their_structures = structures(ours), structures(theirs)
        self.users = theirs.consumers()
        self.partners: dict[Output, Output] = {}
        self.parameters: dict[str, np.ndarray] = {}
        self.used: set[str] = set()  # names of their tensors that our network uses
        self.unfolded: list[str] = []
        self.remaining: list[tuple[Output, Output]] = []

    def match(self) -> Match:
        self.remaining = [(self.ours.outputs[0], self._end_of_embedding())]
        while self.remaining:
            our_value, their_value = self.remaining.pop()
            self._pair(
                see_through(self.our_nodes, our_value), see_through(self.their_nodes, their_value)
            )
        lacking = sorted({*self.ours.tensors} - {*self.parameters})
        if lacking:
            raise self._mismatch("the network must have a tensor", "none", lacking[0])
        extra = sorted({*self.theirs.tensors} - self.used)
        if extra:
            shape = self.theirs.tensors[extra[0]].shape
            raise InterchangeError(
                f"{self.where}: every tensor must belong to a layer of our network, got "
                f"{extra[0]!r} of shape {shape}; use a file that holds this network alone"
            )
        return Match(self.parameters, tuple(reversed(self.unfolded)))

    def _end_of_embedding(self) -> Output:
        """Return the embedding of the other network, before a final normalisation to L2 norm 1."""
        value = see_through(self.their_nodes, self.theirs.outputs[0])
        node = self.their_nodes.get(value.node)
        return node.inputs[0] if node is not None and node.op == "l2_normalize" else value

    def _pair(self, our_value: Output, their_value: Output) -> None:
        if our_value in self.partners:
            if self.partners[our_value] != their_value:
                raise self._mismatch(
                    "the layer must feed the same layers as in our network",
                    "another connection",
                    their_value.node,
                )
            return
        ours, theirs = self.our_nodes.get(our_value.node), self.their_nodes.get(their_value.node)
        if ours and theirs and ours.op == "batch_norm" and theirs.op in WEIGHTED:
            self._unfold(ours, theirs)
            self.remaining.append((ours.inputs[0], their_value))
            return
        self.partners[our_value] = their_value
        if ours is None and theirs is None:
            return
        if ours is None or theirs is None or ours.op != theirs.op:
            raise self._mismatch(
                f"our network has {_name_operation(ours)} there",
                _name_operation(theirs),
                their_value.node,
            )
        self._pair_nodes(ours, theirs)

    def _pair_nodes(self, ours: Node, theirs: Node) -> None:
        mine, other = compared_attributes(ours), compared_attributes(theirs)
        for name in sorted({*mine} | {*other}):
            if mine.get(name) != other.get(name):
                raise self._mismatch(
                    f"our layer has the {name} {mine.get(name)}", other.get(name), theirs.name
                )
        if len(ours.inputs) != len(theirs.inputs):
            raise self._mismatch(
                f"our layer has {len(ours.inputs)} inputs", len(theirs.inputs), theirs.name
            )
        if ours.op == "batch_norm":
            self._take_batch_norm(ours, theirs)
        else:
            self._take_tensors(ours, theirs)
        first, second = ours.inputs, theirs.inputs
        if ours.op in COMMUTATIVE:
            first = _ordered(first, self.our_structures)
            second = _ordered(second, self.their_structures)
        self.remaining += zip(first, second, strict=True)

    def _take_tensors(self, ours: Node, theirs: Node) -> None:
        for role, name in theirs.tensors.items():
            if role not in ours.tensors and name not in self.used:
                raise self._mismatch(f"our layer has no {role}", "a tensor", name)
        for role, name in ours.tensors.items():
            wanted = self._our_shape(ours, role)
            if role not in theirs.tensors:
                if role != "bias":
                    raise self._mismatch(f"our layer has a {role}", "none", theirs.name)
                self._put(name, np.zeros(wanted, np.float32))
                continue
            tensor = self._their_tensor(theirs, role)
            if role == "slope" and tensor.size == 1:
                tensor = np.broadcast_to(tensor.reshape(1), wanted)
            self._require_shape(tensor, wanted, theirs.tensors[role])
            self._put(name, tensor)

    def _take_batch_norm(self, ours: Node, theirs: Node) -> None:
        values = {role: self._their_tensor(theirs, role) for role in ours.tensors}
        for role, value in values.items():
            self._require_shape(value, self._our_shape(ours, role), theirs.tensors[role])
        if theirs.attributes.get("fixed_scale", False):
            values["gamma"] = np.ones_like(values["gamma"])
        change = theirs.attributes["epsilon"] - ours.attributes["epsilon"]
        variance = values["running_var"].astype(np.float64) + change
        values["running_var"] = variance.astype(np.float32)
        values["running_mean"] = values["running_mean"] - self._take_bias(ours, theirs)
        for role, name in ours.tensors.items():
            self._put(name, values[role])

    def _take_bias(self, ours: Node, theirs: Node) -> np.ndarray | float:
        """Return the bias to subtract from the running mean; 0.0 if there is none."""
        mine = self.our_nodes.get(see_through(self.our_nodes, ours.inputs[0]).node)
        value = see_through(self.their_nodes, theirs.inputs[0])
        layer = self.their_nodes.get(value.node)
        if mine is None or layer is None or layer.op not in WEIGHTED or "bias" in mine.tensors:
            return 0.0
        if "bias" not in layer.tensors or len(self.users[value]) != 1:
            return 0.0
        bias = self._their_tensor(layer, "bias")
        self._require_shape(bias, self._our_shape(ours, "gamma"), layer.tensors["bias"])
        return bias

    def _unfold(self, ours: Node, theirs: Node) -> None:
        shape = self._our_shape(ours, "gamma")
        beta = np.zeros(shape, np.float32)
        if "bias" in theirs.tensors:
            beta = self._their_tensor(theirs, "bias")
            self._require_shape(beta, shape, theirs.tensors["bias"])
        variance = np.full(shape, 1 - ours.attributes["epsilon"], np.float32)
        self._put(ours.tensors["gamma"], np.ones(shape, np.float32))
        self._put(ours.tensors["beta"], beta)
        self._put(ours.tensors["running_mean"], np.zeros(shape, np.float32))
        self._put(ours.tensors["running_var"], variance)
        self.unfolded.append(ours.tensors["gamma"].rpartition(".")[0])

    def _put(self, name: str, tensor: np.ndarray) -> None:
        self.parameters[name] = np.ascontiguousarray(tensor, np.float32)

    def _their_tensor(self, node: Node, role: str) -> np.ndarray:
        self.used.add(node.tensors[role])
        return self.theirs.tensors[node.tensors[role]]

    def _our_shape(self, node: Node, role: str) -> tuple[int, ...]:
        return self.ours.tensors[node.tensors[role]].shape

    def _require_shape(self, tensor: np.ndarray, wanted: tuple[int, ...], name: str) -> None:
        if tensor.shape != wanted:
            raise self._mismatch(
                f"our network has the shape {wanted} there", f"the shape {tensor.shape}", name
            )

    def _mismatch(self, what: str, found: object, name: str) -> InterchangeError:
        return InterchangeError(
            f"{self.where}: {name!r} does not fit: {what}, got {found}; use the weights of "
            "one of our networks"
        )


def _ordered(values: Sequence[Output], found: dict[Output, Structure]) -> tuple[Output, ...]:
    """Sort the inputs of a commutative operation by structure."""
    return tuple(sorted(values, key=lambda value: found[value]))


def _name_operation(node: Node | None) -> str:
    return f"the operation {node.op}" if node is not None else "the input"

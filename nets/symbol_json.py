# SPDX-License-Identifier: Apache-2.0
"""Check the JSON text of an MXNet symbol and load the text, in every layout since MXNet 0.5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mxnet as mx

MAX_CHARACTERS = 50_000_000
MAX_NODES = 100_000
ATTRIBUTES = ("param", "attr", "attrs")
"""Keys of a node under which MXNet 0.x and 1.x store its attributes, from old to new."""
_CURE = "use an undamaged symbol file that MXNet has saved"


class SymbolError(ValueError):
    """A text is not a valid MXNet symbol."""


def load_symbol(text: str, where: str) -> mx.sym.Symbol:
    """Load the JSON text of a symbol; ``where`` names the source of the text in error messages.

    MXNet does not check the indices of nodes in the text, so a damaged text may crash the process.
    This function checks the indices first.

    Raises
    ------
    SymbolError
        If the text is not a valid symbol, or if the installed MXNet lacks an operator of it.
    """
    if len(text) > MAX_CHARACTERS:
        raise SymbolError(
            f"{where}: a symbol must have at most {MAX_CHARACTERS:,} characters, got "
            f"{len(text):,}; {_CURE}"
        )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SymbolError(f"{where}: is not JSON, got {error}; {_CURE}") from None
    fault = _fault(content)
    if fault:
        raise SymbolError(f"{where}: {fault}; {_CURE}")
    try:
        return mx.sym.load_json(text)
    except mx.base.MXNetError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SymbolError(
            f"{where}: MXNet cannot load the symbol, got {lines[-1] if lines else error}; {_CURE}"
        ) from None


def _fault(content: Any) -> str:
    """Return what is wrong with the structure of a symbol, or "" if it is valid."""
    if not isinstance(content, dict) or not isinstance(content.get("nodes"), list):
        return "a symbol must be a JSON object with a list of nodes, got other content"
    nodes = content["nodes"]
    if not 0 < len(nodes) <= MAX_NODES:
        return f"a symbol must have 1 to {MAX_NODES:,} nodes, got {len(nodes):,}"
    for index, node in enumerate(nodes):
        if fault := _node_fault(node, index):
            return fault
    heads, arguments = content.get("heads"), content.get("arg_nodes", [])
    if not isinstance(heads, list) or not heads or not _are_entries(heads, len(nodes)):
        return f"the heads must be outputs of the {len(nodes):,} nodes, got {str(heads)[:80]}"
    if not isinstance(arguments, list) or not all(_is_index(a, len(nodes)) for a in arguments):
        return f"arg_nodes must be indices of the {len(nodes):,} nodes, got other content"
    return ""


def _node_fault(node: Any, index: int) -> str:
    name = node.get("name") if isinstance(node, dict) else None
    if not isinstance(name, str) or not isinstance(node.get("op"), str):
        return f"node {index} must have a name and an operator, got {str(node)[:80]}"
    if "subgraphs" in node:
        return f"node {name!r} must contain no subgraph, got control flow with {node['op']!r}"
    if not isinstance(node.get("inputs"), list) or not _are_entries(node["inputs"], index):
        return (
            f"node {name!r} must use outputs of earlier nodes, got {str(node.get('inputs'))[:80]}"
        )
    for key in ATTRIBUTES:
        values = node.get(key) or {}
        if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
            return f"node {name!r} must map names to strings in {key}, got {str(values)[:80]}"
    return ""


def _are_entries(entries: list[Any], count: int) -> bool:
    """Return whether all entries are [node, output] or [node, output, version].

    Each ``node`` must be an index below ``count``, and each ``output`` an index below MAX_NODES.
    """
    return all(
        isinstance(entry, list)
        and len(entry) in (2, 3)
        and _is_index(entry[0], count)
        and _is_index(entry[1], MAX_NODES)
        for entry in entries
    )


def _is_index(value: Any, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def node_attributes(node: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of a node of a symbol's JSON, whatever key holds them."""
    return {name: value for key in ATTRIBUTES for name, value in (node.get(key) or {}).items()}

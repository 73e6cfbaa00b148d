# SPDX-License-Identifier: Apache-2.0
"""Find the tensors of a network in the content of a PyTorch file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor, describe_names
from interchange.torch_pickle import TensorView, text
from plain_pickle import describe

NESTED_KEYS = (
    "state_dict_backbone",
    "state_dict",
    "model_state_dict",
    "model",
    "backbone",
    "net",
    "network",
)
"""Keys under which training programs store the state dict of the network."""
PREFIXES = ("module.", "backbone.", "_orig_mod.")
"""Prefixes that wrappers of a network put before the names of its tensors."""
CURE = "save the weights with torch.save(model.state_dict(), PATH)"


@dataclass(frozen=True)
class StateDict:
    """Tensors of a network, and what else the file contains."""

    tensors: dict[str, StoredTensor]
    """Tensors by name, without the prefixes of wrappers."""
    notices: tuple[str, ...] = ()
    """Sentences about parts of the file that are ignored, because they are no weights."""


def find_state_dict(
    path: str, content: object, stored: Callable[[TensorView], StoredTensor]
) -> StateDict:
    """Find the dict of tensors in the content of a file; describe the rest in notices.

    Parameters
    ----------
    path
        Path of the file, for messages.
    content
        Object that the file contains, as `interchange.torch_pickle` reads it.
    stored
        Function that converts a `TensorView` to a `StoredTensor`.

    Raises
    ------
    InterchangeError
        If the content has no dict of tensors.
    """
    notices: list[str] = []
    content = _innermost(path, content, notices)
    if not isinstance(content, dict) or not _has_tensors(content):
        found = describe(content)
        if isinstance(content, dict) and content:
            found += f" with the keys {describe_names([text(k) or str(k) for k in content])}"
        raise InterchangeError(f"{path}: must contain a state dict, got {found}; {CURE}")
    tensors = {}
    skipped = []
    for name, value in content.items():
        label = text(name) or str(name)
        if isinstance(value, TensorView):
            tensors[label] = stored(value)
        else:
            skipped.append(label)
    if skipped:
        notices.append(f"{path}: entries without a tensor are ignored: "
                       f"{describe_names(skipped)}")  # fmt: skip
    tensors, others = strip_prefixes(tensors)
    if others:
        notices.append(
            f"{path}: tensors outside the backbone are ignored: {describe_names(others)}"
        )
    return StateDict(tensors, tuple(notices))


def _innermost(path: str, content: object, notices: list[str]) -> object:
    """Return the content under nested keys such as "state_dict"; report other keys in notices."""
    while isinstance(content, dict) and not _has_tensors(content):
        key = next((k for k in NESTED_KEYS if _has_tensors(_get(content, k), levels=2)), None)
        if key is None:
            return content
        others = [text(k) or str(k) for k in content if text(k) != key]
        if others:
            notices.append(
                f"{path}: only the entry {key!r} is used; ignored: {describe_names(others)}"
            )
        content = _get(content, key)
    return content


def _get(content: dict, key: str) -> object:
    return content.get(key, content.get(key.encode()))


def _has_tensors(content: object, levels: int = 1) -> bool:
    """Return whether a dict has tensors, directly or under up to ``levels`` - 1 nested keys."""
    if not isinstance(content, dict):
        return False
    if any(isinstance(value, TensorView) for value in content.values()):
        return True
    return levels > 1 and any(_has_tensors(_get(content, k), levels - 1) for k in NESTED_KEYS)


def strip_prefixes(
    tensors: dict[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Remove the prefixes of wrappers from names.

    Outputs
    -------
    The tensors of the network, and the names of the dropped tensors.  If some names begin with
    "backbone.", all other tensors are dropped.
    """
    others: list[str] = []
    for _ in PREFIXES:
        for prefix in PREFIXES:
            inside = [name for name in tensors if name.startswith(prefix)]
            if inside and (len(inside) == len(tensors) or prefix == "backbone."):
                others += [name for name in tensors if not name.startswith(prefix)]
                tensors = {name.removeprefix(prefix): tensors[name] for name in inside}
    return tensors, others

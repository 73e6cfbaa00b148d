# SPDX-License-Identifier: Apache-2.0
"""Read the descriptions of settings from the docstrings of dataclass fields and builders."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any


@cache
def field_docs(section: type) -> Mapping[str, str]:
    """Return the docstring below each field of a dataclass, keyed by the name of the field."""
    (body,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for before, node in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(node, ast.Expr):
            assert isinstance(before.target, ast.Name) and isinstance(node.value, ast.Constant)
            found[before.target.id] = _one_line(str(node.value.value))
    return MappingProxyType(found)


def parameter_docs(builder: Callable[..., Any]) -> dict[str, str]:
    """Return a dict from each parameter of a class or function to its description."""
    owners = reversed(inspect.getmro(builder)) if inspect.isclass(builder) else [builder]
    found = {}
    for owner in owners:
        text = docstring_parts(owner).get("Parameters", "")
        for names, description in re.findall(r"^(\w.*)\n((?:[ \t]+.*\n?|\n)+)", text, re.M):
            for name in names.split(":")[0].split(","):
                found[name.strip()] = _one_line(description)
    return found


def docstring_parts(owner: Any) -> dict[str, str]:
    """Split a NumPy-style docstring into a dict from section heading to text.

    The text before the first heading has the key "".
    """
    text = inspect.cleandoc(owner.__doc__ or "")
    first, *rest = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.M)
    return {"": first.strip(), **dict(zip(rest[::2], rest[1::2], strict=True))}


def summary(owner: Any) -> str:
    """Return the first line of the docstring of a class or function."""
    return docstring_parts(owner)[""].partition("\n")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())

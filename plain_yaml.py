# SPDX-License-Identifier: Apache-2.0
"""Parse YAML text of plain values, with bounds on time and memory.

A few lines of YAML can stand for gigabytes (aliases of aliases).  Deep nesting or a number with
thousands of digits makes PyYAML raise errors other than ``yaml.YAMLError``.  This module refuses
such text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS = 100_000
MAX_DEPTH = 20
MAX_VALUES = 20_000
"""Largest number of values, with each value counted as often as aliases repeat it."""
MAX_DIGITS = 40
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_FIXED = "write the plain value instead"


class PlainYamlError(ValueError):
    """Error for YAML text that cannot be read; the message says what is wrong and what to do."""


class _Loader(yaml.SafeLoader):
    """Loader of null, bool, int, float, text, lists and mappings; dates stay text."""

    yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Any:
    """Parse YAML text.

    Outputs
    -------
    Nested dicts and lists of None, bool, int, float and str.

    Raises
    ------
    PlainYamlError
        If the text is no valid YAML, contains a tag, or is too long, too deep or too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise PlainYamlError(
            f"must have at most {MAX_CHARACTERS} characters, got {len(text)}; shorten it"
        )
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except PlainYamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML raises ValueError for a number without digits, such as 0x_.
        raise PlainYamlError(f"invalid YAML, got: {one_line(error)}; fix that line") from None


def read_yaml_file(path: Path) -> Any:
    """Parse a YAML file in UTF-8.

    Raises
    ------
    PlainYamlError
        In the cases of ``parse_yaml``, and if the file is not UTF-8.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(4 * MAX_CHARACTERS + 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) <= 4 * MAX_CHARACTERS:
            raise PlainYamlError(
                f"invalid YAML, got: {one_line(error)}; save the file in UTF-8"
            ) from None
        text = content.decode("utf-8", errors="replace")
    return parse_yaml(text)


def one_line(error: Exception) -> str:
    """Return the message of an error on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300]


def _check_events(text: str) -> None:
    """Raise PlainYamlError for text with too many levels or values, a tag, or a long number.

    The events of PyYAML's parser come one by one, so the check ends at the first excess.
    """
    check = _Check()
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            check.close()
        elif isinstance(event, yaml.NodeEvent):
            check.add(event, f"line {event.start_mark.line + 1}")


class _Check:
    """Count of the values, and stack of the open nodes, that a parser has reported so far."""

    def __init__(self) -> None:
        self.count = 0
        self.sizes: dict[str, int] = {}  # number of values of each complete node with an anchor
        # For each open node: its anchor, and the number of values before the node.
        self.opened: list[tuple[str | None, int]] = []

    def close(self) -> None:
        """Store the number of values of a list or a mapping that is now complete."""
        anchor, before = self.opened.pop()
        if anchor is not None:
            self.sizes[anchor] = self.count - before

    def add(self, event: yaml.NodeEvent, where: str) -> None:
        """Check and count a value, or the start of a list or mapping."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.sizes:
                raise PlainYamlError(
                    f"{where} has no value for an alias, got *{event.anchor}; {_FIXED}"
                )
            self._count(self.sizes[event.anchor], where)
            return
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise PlainYamlError(f"{where} must have no tag, got {tag[:60]!r}; {_FIXED}")
        if isinstance(event, yaml.ScalarEvent):
            _check_scalar(event, where)
            if event.anchor is not None:
                self.sizes[event.anchor] = 1
        else:
            self.opened.append((event.anchor, self.count))
            if len(self.opened) > MAX_DEPTH:
                raise PlainYamlError(
                    f"{where} must have at most {MAX_DEPTH} brackets or indented blocks around a "
                    "value, got more; use fewer levels"
                )
        self._count(1, where)

    def _count(self, values: int, where: str) -> None:
        self.count += values
        if self.count > MAX_VALUES:
            raise PlainYamlError(
                f"must have at most {MAX_VALUES} values, counting those that aliases repeat, got "
                f"more at {where}; use fewer values and fewer aliases"
            )


_RESOLVER = _Loader("")


def _check_scalar(event: yaml.ScalarEvent, where: str) -> None:
    """Raise PlainYamlError if a value is a number with too many digits."""
    if event.implicit[0] and len(event.value) > MAX_DIGITS:
        kind = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
        if kind in _NUMBERS:
            raise PlainYamlError(
                f"{where} has too long a number, got {event.value[:20]}... with "
                f"{len(event.value)} characters; round it to at most {MAX_DIGITS} digits"
            )

# SPDX-License-Identifier: Apache-2.0
"""Names of the identities of a record set: their order, and the file ``identities.json``.

The file is a JSON list with one name per label, beside the .rec.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from atomic_write import atomic_write
from launch.config.printable_text import printable

FILE_NAME = "identities.json"
_MAX_DIGITS = 18
_MAX_FILE_BYTES = 1 << 30
_MAX_NAME_BYTES = 255  # longest file name on Linux


def sort_names(names: Iterable[str]) -> list[str]:
    """Return the names in the order of their labels.

    If all names are decimal numbers of at most 18 digits, they are sorted as numbers.  If not, all
    names are sorted as text.
    """
    found = list(names)
    if all(name.isascii() and name.isdecimal() and len(name) <= _MAX_DIGITS for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def are_folder_names(names: Sequence[str]) -> bool:
    """Return whether ``pack`` gives folders of these names the labels 0, 1, 2, ... in this order.

    The names must be valid and distinct folder names, and must have the order of ``sort_names``.
    """
    for name in names:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            return False
        if len(os.fsencode(name)) > _MAX_NAME_BYTES:
            return False
    return len(set(names)) == len(names) and sort_names(names) == list(names)


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write identities.json."""
    with atomic_write(path) as file:
        file.write(b"[")
        for number, name in enumerate(names):
            file.write((b",\n" if number else b"\n") + _quote(name))
        file.write(b"\n]\n")


def _quote(name: str) -> bytes:
    try:
        return json.dumps(name, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a file name whose bytes are not UTF-8
        return json.dumps(name).encode()


def read_names(path: Path, num_classes: int | None) -> list[str] | None:
    """Read identities.json; return the name of each label, or None if the file does not exist.

    Raises
    ------
    ValueError
        If the file is damaged, or if the number of names is not ``num_classes``.  With a
        ``num_classes`` of None, any number of names is valid.
    """
    if not path.is_file():
        return None
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ValueError(
            f"{printable(path)}: must have at most {_MAX_FILE_BYTES} bytes, got {size}; remove the "
            "file to use the set without names"
        )
    try:
        names = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{printable(path)}: must be a JSON list of names, got other data; remove the file to "
            "use the set without names"
        )
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"{printable(path)}: must have one name per label, {num_classes} names, got "
            f"{len(names)}; remove the file to use the set without names"
        )
    return names

# SPDX-License-Identifier: Apache-2.0
"""Read lists of identities and of keys from options of the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from launch.config.paths import expand_home
from launch.config.printable_text import printable
from suggestions import question, suggest

if TYPE_CHECKING:
    from pipeline.records.record_set import RecordSet
    from tools.data.record_sets import NamedSet

_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_MAX_FILE_BYTES = 1 << 28
_MAX_SUGGESTED = 2000  # number of names that are searched for a similar one


def read_entries(text: str, option: str) -> list[str]:
    """Return the entries of a list: ``A,B,C``, or the lines of a file if the text is ``@FILE``.

    Raises
    ------
    ValueError
        If the file cannot be read, or if there is no entry.
    """
    if not text.startswith("@"):
        entries = [part.strip() for part in text.split(",")]
    else:
        path = Path(expand_home(text[1:]))
        try:
            if path.exists() and not path.is_file():
                raise OSError(0, "a folder or a special file")
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(
                f"{option}: the file {printable(path)} cannot be read, got {error.strerror}; name "
                "a text file"
            ) from None
        if len(data) > _MAX_FILE_BYTES:
            raise ValueError(
                f"{option}: the file {printable(path)} must have at most {_MAX_FILE_BYTES} bytes, "
                "got more; name a text file"
            )
        lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n")
        entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry]
    if not entries:
        raise ValueError(f"{option}: must contain at least one entry, got an empty list; add one")
    return entries


def find_identities(text: str, option: str, opened_set: NamedSet) -> np.ndarray:
    """Return the labels of the identities of a list, int64.

    The entries are names if the set has identities.json, else labels and ranges of labels.

    Raises
    ------
    ValueError
        If an identity is unknown.
    """
    entries = read_entries(text, option)
    if not opened_set.has_names:
        return _numbers(entries, option, opened_set.records.num_classes - 1, "label")
    labels = {name: label for label, name in enumerate(opened_set.names)}
    stripped = {name.strip(): label for name, label in labels.items()}
    found = [labels.get(entry, stripped.get(entry, -1)) for entry in entries]
    if min(found) < 0:
        entry = entries[found.index(-1)]
        near = question(suggest(entry, opened_set.names[:_MAX_SUGGESTED]))
        hint = f"; {near}" if near else "; identities.json lists the names"
        raise ValueError(f"{option}: unknown identity, got {printable(entry)!r}{hint}")
    return np.array(found, dtype=np.int64)


def find_keys(text: str, option: str, records: RecordSet) -> np.ndarray:
    """Return the keys of a list of keys and ranges of keys, int64.

    Raises
    ------
    ValueError
        If an entry is neither a number nor a range, or is a number that is no key of the set.  A
        range may contain unknown keys.
    """
    entries = read_entries(text, option)
    keys = _numbers(entries, option, int(records.keys.max()), "key")
    single = np.array([int(entry) for entry in entries if "-" not in entry], dtype=np.int64)
    unknown = single[~np.isin(single, records.keys)]
    if len(unknown):
        raise ValueError(
            f"{option}: the set has no image of this key, got {unknown[0]}; the .idx lists the keys"
        )
    return keys


def _numbers(entries: Sequence[str], option: str, most: int, what: str) -> np.ndarray:
    """Return the numbers of entries such as ``7`` or ``10-20``, each in 0 .. most."""
    parts = []
    for entry in entries:
        found = _RANGE.fullmatch(entry)
        first = int(found[1]) if found else -1
        last = int(found[2] or found[1]) if found else -1
        if not 0 <= first <= last <= most:
            raise ValueError(
                f"{option}: each entry must be a {what} or a range such as 10-20 in 0 .. {most}, "
                f"got {printable(entry)!r}; correct the entry"
            )
        parts.append(np.arange(first, last + 1))
    return np.concatenate(parts)

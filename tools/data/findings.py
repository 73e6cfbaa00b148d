# SPDX-License-Identifier: Apache-2.0
"""Findings of the check of a record set: kinds of faults, and a list with a bounded size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

MAX_LISTED_FINDINGS = 100_000
"""Largest number of findings of one kind that are listed; further ones are only counted."""


class Kind(NamedTuple):
    """Kind of fault in a record set."""

    meaning: str
    is_left_out: bool
    """Whether the .idx that the check writes always leaves out records with this fault."""


KINDS = {
    "index": Kind("line of the .idx that is damaged or names no record", True),
    "damaged": Kind("record or image that cannot be read or decoded without an error", True),
    "cut_off": Kind("image that ends before its last pixels", True),
    "wrong_size": Kind("image of another size than the set", True),
    "label_range": Kind("label that is no whole number from 0 to num_classes - 1", True),
    "label": Kind("label that contradicts the identity records of the set", True),
    "duplicate": Kind("image with the same bytes as an image before it", True),
    "near_duplicate": Kind("image that looks the same as an image before it", False),
    "grey": Kind("image without colours", False),
    "turned": Kind("image that its Exif orientation rotates or flips", False),
    "single": Kind("only image of its identity", False),
    "identity_record": Kind("identity record that does not fit the set", False),
    "property": Kind("property file that does not fit the set", False),
}
"""Kinds of findings by name, in the order of the report."""
OPTIONAL_KINDS = tuple(
    name
    for name, kind in KINDS.items()
    if not kind.is_left_out and name not in ("identity_record", "property")
)
"""Kinds of findings whose images are left out of the written .idx only on request."""


class Finding(NamedTuple):
    """One fault in a record set."""

    kind: str
    key: int | None
    """Key of the record; None if the fault concerns no single record."""
    text: str
    """What is wrong, as a clause that follows "key K" or stands alone."""


class Findings:
    """List of findings; the texts of at most MAX_LISTED_FINDINGS of each kind are kept."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self._listed: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        self._keys = {kind: array("q") for kind in KINDS}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, kind: str, key: int | None, text: str) -> None:
        """Count a finding, and list it if the list of its kind is not full."""
        self.counts[kind] += 1
        if key is not None:
            self._keys[kind].append(key)
        if len(self._listed[kind]) < MAX_LISTED_FINDINGS:
            self._listed[kind].append(Finding(kind, key, text))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add several findings."""
        for finding in findings:
            self.add(*finding)

    def keys(self, kinds: Iterable[str]) -> np.ndarray:
        """Return the keys of all records with findings of the given kinds, int64 (n,)."""
        return np.concatenate(
            [np.empty(0, np.int64), *(np.array(self._keys[kind], np.int64) for kind in kinds)]
        )

    def listed(self) -> list[Finding]:
        """Return the listed findings in the order of KINDS, sorted by key within a kind."""
        return [
            finding
            for kind in KINDS
            for finding in sorted(
                self._listed[kind], key=lambda f: (-1 if f.key is None else f.key, f.text)
            )
        ]

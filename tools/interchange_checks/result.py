# SPDX-License-Identifier: Apache-2.0
"""Result of a comparison with another project."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """Result of the comparison of one network."""

    name: str
    """Name of the network in the other project."""
    net: str
    """Name of the network of this project that results from the import."""
    difference: float
    """Largest absolute difference between the normalised embeddings of both networks."""
    as_expected: bool = True
    """Whether the network was recognised as the expected one of ours."""
    note: str = ""

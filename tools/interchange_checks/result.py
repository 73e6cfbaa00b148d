# SPDX-License-Identifier: Apache-2.0
"""Result of a comparison with another project."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """Result of the comparison of one network."""

    name: str
    """Name of the network in the other project."""
    net: str
    """Name of our network that it was imported as."""
    difference: float
    """Largest absolute difference of two normalised embeddings."""
    as_expected: bool = True
    """Whether the network was recognised as the expected one of ours."""
    note: str = ""

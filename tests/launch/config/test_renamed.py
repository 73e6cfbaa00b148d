# SPDX-License-Identifier: Apache-2.0
"""Keys of a YAML file that the net or head named on the command line does not have."""

from __future__ import annotations

import pytest

from launch.config.renamed import drop_keys_of_replaced


def wide(*, width: float = 1.0, size: int = 2):
    """A net with a width."""


def deep(*, depth: int = 1, size: int = 2):
    """A net with a depth."""


BUILDERS = {"net": {"wide": wide, "deep": deep}}


def drop(net, overrides):
    return drop_keys_of_replaced({"net": net, "run": {}}, overrides, BUILDERS, "a.yaml")


def test_only_keys_of_the_replaced_net_are_dropped():
    net = {"name": "wide", "width": 0.5, "size": 3, "typo": 1}
    kept, notices = drop(net, {"net": {"name": "deep"}})
    assert kept == {"net": {"name": "wide", "size": 3, "typo": 1}, "run": {}}
    assert notices == {
        "net": "net: deep replaces wide of a.yaml; dropped the keys that deep does not have: "
        "width=0.5"
    }
    assert net == {"name": "wide", "width": 0.5, "size": 3, "typo": 1}


@pytest.mark.parametrize(
    ("net", "overrides"),
    [
        ({"name": "wide", "size": 3}, {"net": {"name": "deep"}}),  # nothing to drop
        ({"name": "wide", "width": 3}, {}),
        ({"name": "wide", "width": 3}, {"net": {"name": "wide"}}),
        ({"name": "wide", "width": 3}, {"net": {"name": "nothing"}}),
        ({"name": "wide", "width": 3}, {"net": {"name": ["deep"]}}),
        ({"name": {}, "width": 3}, {"net": {"name": "deep"}}),
        ({"width": 3}, {"net": {"name": "deep"}}),
        (["name"], {"net": {"name": "deep"}}),
        (None, {"net": {"name": "deep"}}),
    ],
)
def test_other_sections_stay(net, overrides):
    assert drop(net, overrides) == ({"net": net, "run": {}}, {})

# SPDX-License-Identifier: Apache-2.0
"""The table of names of other projects leads to names that exist here."""

from __future__ import annotations

from typing import get_type_hints

from aliases import ALIASES
from heads import HEADS
from launch.config.configuration import Choice, Config
from launch.config.section_settings import section_settings
from nets import NETS
from ranges import settings


def known_names():
    kinds = get_type_hints(Config)
    names = {*HEADS, *NETS, *kinds}
    for builder in (*HEADS.values(), *NETS.values()):
        names |= {*settings(builder)}
    for kind in kinds.values():
        if kind is not Choice:
            for key, each in section_settings(kind).items():
                names |= {key, *map(str, each.choices)}
    return names


def test_every_name_in_the_table_exists_here():
    assert {name for names in ALIASES.values() for name in names} <= known_names()


def test_keys_of_the_table_are_lower_case_and_no_known_names():
    known = {*HEADS, *NETS}
    assert all(key == key.lower() and key.strip() and key not in known for key in ALIASES)

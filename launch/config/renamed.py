# SPDX-License-Identifier: Apache-2.0
"""Drop YAML keys that do not apply to the net or head that the command line chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ranges import Builders, settings


def drop_keys_of_replaced(
    raw: Mapping[str, Any],
    overrides: Mapping[str, Any],
    builders: Mapping[str, Builders],
    where: str,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Drop keys from the sections whose ``name`` the command line changes.

    The keys of the replaced net or head that the new one does not have are dropped.  Other keys
    stay.  A misspelt key therefore stays too, and is reported later.

    Parameters
    ----------
    raw
        ``{section: {key: value}}`` from the YAML file.
    overrides
        ``{section: {key: value}}`` from the command line.
    builders
        ``{section: {name: builder}}`` for the sections ``net`` and ``head``.  A builder is the
        function or class that builds the net or head of that name.
    where
        Name of the YAML file.

    Outputs
    -------
    A copy of ``raw`` without the dropped keys; and a dict from each section with dropped keys to a
    notice for the log.
    """
    kept, notices = dict(raw), {}
    for section, known in builders.items():
        found = raw.get(section)
        if not isinstance(found, dict):
            continue
        old, new = found.get("name"), overrides.get(section, {}).get("name")
        if old == new:
            continue
        lost = _keys(old, known) - _keys(new, known) if _is_known(new, known) else set()
        dropped = [f"{key}={_yaml(value)}" for key, value in found.items() if key in lost]
        if dropped:
            kept[section] = {key: value for key, value in found.items() if key not in lost}
            notices[section] = (
                f"{section}: {new} replaces {old} of {where}; dropped the keys that {new} does not "
                f"have: {', '.join(dropped)}"
            )
    return kept, notices


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.strip().removesuffix("...").strip()


def _is_known(name: Any, builders: Builders) -> bool:
    return isinstance(name, str) and name in builders


def _keys(name: Any, builders: Builders) -> set[str]:
    return {*settings(builders[name])} if _is_known(name, builders) else set()

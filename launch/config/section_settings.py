# SPDX-License-Identifier: Apache-2.0
"""Read the settings that a section of the configuration declares."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from ranges import Setting, setting


def section_settings(section: type) -> dict[str, Setting]:
    """Return the settings (type, range, default) that a section declares, by key."""
    hints = get_type_hints(section, include_extras=True)
    defaults: Any = section()
    return {
        f.name: setting(f.name, hints[f.name], getattr(defaults, f.name))
        for f in dataclasses.fields(section)
    }

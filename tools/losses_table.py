# SPDX-License-Identifier: Apache-2.0
"""Generate the tables of docs/losses.md from the heads:  python -m tools.losses_table [--write]

The command prints the document with updated tables.  With ``--write``, it overwrites
docs/losses.md instead.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from heads import HEADS
from heads.head import ClassHead, Head
from ranges import Setting, Within, settings

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "losses.md"
IN_THE_TEXT = ("sharded", "sample_rate", "interclass_filter")
"""Settings that many heads share.

A paragraph of the document describes these settings, so the tables omit them.
"""
HEADER = "| name | paper | formula | settings: default, range |\n|---|---|---|---|"


def document(text: str) -> str:
    """Return docs/losses.md with updated tables; two HTML comments delimit each table."""
    of_classes = {name: kind for name, kind in HEADS.items() if issubclass(kind, ClassHead)}
    of_pairs = {name: kind for name, kind in HEADS.items() if name not in of_classes}
    for place, heads in (("class centres", of_classes), ("pairs", of_pairs)):
        begin, end = f"<!-- begin: {place} -->\n", f"<!-- end: {place} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(
                f"{DOCUMENT}: must contain the lines {begin.strip()} and {end} in this order, "
                "got a file without them; restore the lines"
            )
        rows = [HEADER, *(row(name, kind) for name, kind in heads.items())]
        text = before + begin + "\n".join(rows) + "\n" + end + after
    return text


def row(name: str, kind: type[Head]) -> str:
    """Return the table row of a head; paper and formula come from the docstring of its class."""
    _, formula, paper = (
        " ".join(p.split()) for p in (inspect.getdoc(kind) or "").split("\n\n")[:3]
    )
    shown = (s for s in settings(kind).values() if s.name not in IN_THE_TEXT)
    listed = ", ".join(map(setting_text, shown)) or "none"
    cells = [f"`{name}`", paper.removesuffix("."), f"`{formula}`", listed]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def setting_text(setting: Setting) -> str:
    """Return the name, default and range of a setting, such as ``m2 0.5 [0, 1.5708]``."""
    if isinstance(setting.default, bool):
        return f"{setting.name} {str(setting.default).lower()}"
    if setting.choices:
        others = [str(choice) for choice in setting.choices if choice != setting.default]
        return f"{setting.name} {setting.default} (or {', '.join(others)})"
    bounds = setting.range or Within(-float("inf"))
    low = f"{'(' if bounds.open_low else '['}{bounds.low:g}"
    high = "∞)" if bounds.high == float("inf") else f"{bounds.high:g}]"
    return f"{setting.name} {setting.default:g} {low}, {high}"


def main() -> None:
    """Print docs/losses.md with updated tables, or overwrite it if ``--write`` is given."""
    text = document(DOCUMENT.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Generate the tables of docs/nets.md from the networks:  python -m tools.nets_table [--write]

The command prints the document with updated tables.  With ``--write``, it overwrites docs/nets.md
instead.  The step times come from benchmarks/results/net_step.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nets import ALIASES, NETS, build_net
from nets.embedding import OUTPUTS
from nets.layer_table import measure
from ranges import Setting, Within, settings
from tools.net_checks.published import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "nets.md"
STEPS = ROOT / "benchmarks" / "results" / "net_step.json"
MEBIBYTE = 2**20
Row = list[str]


def document(text: str) -> str:
    """Return docs/nets.md with updated tables; two HTML comments delimit each table."""
    for place, make in TABLES.items():
        begin, end = f"<!-- begin: {place} -->\n", f"<!-- end: {place} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(
                f"{DOCUMENT}: must contain the lines {begin.strip()} and {end} in this order, "
                "got a file without them; restore the lines"
            )
        head, *rows = make()
        lines = [head, ["---"] * len(head), *rows]
        table = "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |\n"
                        for line in lines)  # fmt: skip
        text = before + begin + table + end + after
    return text


def own_names() -> list[str]:
    """Return the names of the networks without the aliases."""
    return [name for name in NETS if name not in ALIASES]


def size_rows() -> list[Row]:
    """Return the table of sizes and step times: a header row, then a row for each network."""
    steps = step_rows()
    rows = [
        ["`net.name`", "parameters", "MACs", "weights", "activations", "embedding", "step",
         "memory of a step"]
    ]  # fmt: skip
    for name in own_names():
        size, step = measure(build_net(name)), steps.get(f"ours {name}", {})
        embedding = settings(NETS[name])["embedding_size"].default
        rows.append([
            f"`{name}`",
            f"{size.parameters / 1e6:.2f} M",
            f"{size.macs / 1e9:.2f} G",
            f"{size.mebibytes:.1f} MiB",
            f"{size.activation_bytes / MEBIBYTE:.1f} MiB",
            str(embedding),
            f"{step['milliseconds']:,.0f} ms" if step else "not measured",
            f"{step['extra_mib']:,.0f} MiB" if step else "not measured",
        ])  # fmt: skip
    return rows


def stock_rows() -> list[Row]:
    """Return the table of step times with our trunk and with gluoncv2's trunk.

    A trunk consists of the layers before the embedding layers.  The table has a row for each
    network whose trunk gluoncv2 also has.
    """
    steps = step_rows()
    rows = [["trunk", "ours", "gluoncv2", "speed of ours"]]
    for name in own_names():
        ours, theirs = steps.get(f"ours {name}"), steps.get(f"gluoncv2 {name}")
        if ours and theirs:
            ratio = theirs["milliseconds"] / ours["milliseconds"]
            rows.append([
                f"`{name}`",
                f"{ours['milliseconds']:,.0f} ms",
                f"{theirs['milliseconds']:,.0f} ms",
                f"{ratio:.2f}",
            ])  # fmt: skip
    return rows


def step_rows() -> dict[str, Mapping[str, Any]]:
    """Return a dictionary of the results in STEPS, with keys such as "ours dpn68"."""
    if not STEPS.is_file():
        return {}
    rows = json.loads(STEPS.read_text(encoding="utf-8"))["rows"]
    return {row["name"].rpartition(" B=")[0]: row for row in rows}


def published_rows() -> list[Row]:
    """Return the table of published numbers of parameters and MACs, and published accuracies."""
    rows = [["`net.name`", "paper", "published count", "face accuracy in percent", "differences"]]
    for name, facts in PUBLISHED.items():
        macs = f", {facts.macs / 1e9:.3f} G" if facts.macs else ""
        rows.append([
            f"`{name}`",
            facts.family,
            f"{facts.parameters / 1e6:.3f} M{macs} ({facts.source})",
            facts.accuracy,
            facts.difference or "none",
        ])  # fmt: skip
    return rows


def setting_rows() -> list[Row]:
    """Return the table of settings; networks with the same settings share a row."""
    groups: dict[str, list[str]] = {}
    for name in own_names():
        text = ", ".join(setting_text(each) for each in settings(NETS[name]).values())
        groups.setdefault(text, []).append(f"`{name}`")
    return [["nets", "keys of `net`: default, range"]] + [
        [", ".join(names), text] for text, names in groups.items()
    ]


def setting_text(setting: Setting) -> str:
    """Return the name, default and range of a setting, such as ``width 1 (0, 4]``."""
    if isinstance(setting.default, bool):
        return f"{setting.name} {str(setting.default).lower()}"
    if setting.name == "output":
        return f"output {setting.default}"
    if setting.choices:
        others = [str(choice) for choice in setting.choices if choice != setting.default]
        return f"{setting.name} {setting.default} (or {', '.join(others)})"
    if setting.entry:
        return f"{setting.name} {setting.default}"
    bounds = setting.range or Within(-float("inf"))
    low = f"{'(' if bounds.open_low else '['}{bounds.low:g}"
    high = f"{bounds.high:g}{')' if bounds.open_high else ']'}"
    return f"{setting.name} {setting.default:g} {low}, {high}"


def output_rows() -> list[Row]:
    """Return the table of the values of ``net.output`` and the layers that they stand for."""
    return [["`net.output`", "layers"], *([f"`{name}`", text] for name, text in OUTPUTS.items())]


def alias_rows() -> list[Row]:
    """Return the table of the short names of networks and the names that they stand for."""
    rows = [["short name", "stands for"]]
    for alias, name in ALIASES.items():
        own, usual = settings(NETS[alias]), settings(NETS[name])
        changed = [f"{k}={own[k].default:g}" for k in own if own[k].default != usual[k].default]
        rows.append([f"`{alias}`", " ".join([f"`{name}`", *(f"`{text}`" for text in changed)])])
    return rows


TABLES: dict[str, Callable[[], list[Row]]] = {
    "sizes": size_rows,
    "trunks": stock_rows,
    "published": published_rows,
    "settings": setting_rows,
    "outputs": output_rows,
    "short names": alias_rows,
}
"""Mapping from the name of a table in docs/nets.md to the function that makes its rows."""


def main() -> None:
    """Print docs/nets.md with updated tables, or overwrite it if ``--write`` is given."""
    text = document(DOCUMENT.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()

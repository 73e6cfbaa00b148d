# SPDX-License-Identifier: Apache-2.0
"""A bar chart of the rows of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import rivals

OURS, RIVAL, LIMIT = "#1f6f8b", "#b8b8b8", "#e0c068"


def draw(groups: Sequence[Sequence[dict[str, Any]]], title: str, path: Path) -> str:
    """Draw the milliseconds of each row, a panel per group; return why not, or nothing.

    The bar is the median, the whisker the quartiles.
    """
    why = rivals.install()
    if why:
        return f"no chart: {why}"
    rivals.use_folder()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [len(rows) for rows in groups]
    figure, panels = pyplot.subplots(
        len(groups),
        1,
        figsize=(9, 0.9 + sum(0.38 * size + 0.45 for size in sizes)),
        squeeze=False,
        gridspec_kw={"height_ratios": [size + 0.6 for size in sizes]},
        layout="constrained",
    )
    for panel, rows in zip(panels[:, 0], groups, strict=True):
        medians = [row["milliseconds"] for row in rows]
        whiskers = [
            [m - row["spread"][0] for m, row in zip(medians, rows, strict=True)],
            [row["spread"][1] - m for m, row in zip(medians, rows, strict=True)],
        ]
        names = [row["name"] for row in rows]
        panel.barh(names, medians, xerr=whiskers, color=[colour(n) for n in names], height=0.7)
        for place, median in enumerate(medians):
            panel.annotate(
                f" {median:,.0f} ms" if median >= 10 else f" {median:.2f} ms",
                (max(median, rows[place]["spread"][1]), place),
                va="center",
            )
        panel.invert_yaxis()
        panel.set_xlim(0, 1.15 * max(row["spread"][1] for row in rows))
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("milliseconds per step (median, quartiles)")
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return ""


def colour(name: str) -> str:
    """Return the colour of a row: ours, a rival's, a limit's."""
    return {"ours": OURS, "limit": LIMIT}.get(name.split()[0], RIVAL)

# SPDX-License-Identifier: Apache-2.0
"""A bar chart of the rows of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import baselines

OURS, BASELINE, LIMIT = "#1f6f8b", "#b8b8b8", "#e0c068"


def draw(
    groups: Sequence[Sequence[dict[str, Any]]], title: str, path: Path, rates: bool = False
) -> str:
    """Draw the milliseconds or the rate of each row, a panel per group; return why not, or nothing.

    The bar is the median, the whisker the quartiles.
    """
    why = baselines.install()
    if why:
        return f"no chart: {why}"
    baselines.use_folder()
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
        key = "images_per_second" if rates else "milliseconds"
        medians = [row[key] for row in rows]
        spreads = [row["images_per_second_spread" if rates else "spread"] for row in rows]
        whiskers = [
            [m - low for m, (low, _) in zip(medians, spreads, strict=True)],
            [high - m for m, (_, high) in zip(medians, spreads, strict=True)],
        ]
        names = [row["name"] for row in rows]
        panel.barh(names, medians, xerr=whiskers, color=[colour(n) for n in names], height=0.7)
        for place, median in enumerate(medians):
            panel.annotate(
                f" {text(rows[place], median, rates)}",
                (max(median, spreads[place][1]), place),
                va="center",
            )
        panel.invert_yaxis()
        panel.set_xlim(0, (1.4 if rates else 1.15) * max(high for _, high in spreads))
        panel.spines[["top", "right"]].set_visible(False)
    unit = "images/s" if rates else "milliseconds per step"
    panels[-1, 0].set_xlabel(f"{unit} (median, quartiles)")
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return ""


def text(row: dict[str, Any], median: float, rate: bool) -> str:
    """Return the words at the end of a bar: a rate with its shares of the limits, or a time."""
    if not rate:
        return f"{median:,.0f} ms" if median >= 10 else f"{median:.2f} ms"
    shares = [
        f"{value:.2f} of {key.removeprefix('of limit ')}"
        for key, value in row.items()
        if key.startswith("of limit ") and key != f"of {row['name']}"
    ]
    return f"{median:,.0f}  ({', '.join(shares)})" if shares else f"{median:,.0f}"


def colour(name: str) -> str:
    """Return the colour of a row: ours, a baseline's, a limit's."""
    return {"ours": OURS, "limit": LIMIT}.get(name.split()[0], BASELINE)

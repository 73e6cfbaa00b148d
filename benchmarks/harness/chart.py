# SPDX-License-Identifier: Apache-2.0
"""Draw bar charts of the result rows of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import baselines

OUR_COLOUR, BASELINE_COLOUR, LIMIT_COLOUR = "#1f6f8b", "#b8b8b8", "#e0c068"


def draw(
    groups: Sequence[Sequence[dict[str, Any]]], title: str, path: Path, rates: bool = False
) -> str:
    """Draw a chart with a panel for each group of rows and a bar for each row; save it as PNG.

    The length of a bar is the median; the error bar spans the first to the third quartile.

    Parameters
    ----------
    rates
        Draw images per second instead of milliseconds.

    Returns
    -------
    str
        Reason why there is no chart; empty on success.
    """
    reason = baselines.install()
    if reason:
        return f"no chart: {reason}"
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
        error_bars = [
            [m - low for m, (low, _) in zip(medians, spreads, strict=True)],
            [high - m for m, (_, high) in zip(medians, spreads, strict=True)],
        ]
        names = [row["name"] for row in rows]
        colours = [bar_colour(name) for name in names]
        panel.barh(names, medians, xerr=error_bars, color=colours, height=0.7)
        for place, median in enumerate(medians):
            panel.annotate(
                f" {bar_label(rows[place], median, rates)}",
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


def bar_label(row: dict[str, Any], median: float, rate: bool) -> str:
    """Return the label of a row's bar: time, or images/s and its ratio to each upper bound."""
    if not rate:
        return f"{median:,.0f} ms" if median >= 10 else f"{median:.2f} ms"
    fractions = [
        f"{value:.2f} of {key.removeprefix('of limit ')}"
        for key, value in row.items()
        if key.startswith("of limit ") and key != f"of {row['name']}"
    ]
    return f"{median:,.0f}  ({', '.join(fractions)})" if fractions else f"{median:,.0f}"


def bar_colour(name: str) -> str:
    """Return the bar colour of a row, which depends on its kind: ours, baseline or upper bound."""
    return {"ours": OUR_COLOUR, "limit": LIMIT_COLOUR}.get(name.split()[0], BASELINE_COLOUR)

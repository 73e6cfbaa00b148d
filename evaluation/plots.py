# SPDX-License-Identifier: Apache-2.0
"""Diagrams of verification scores and of runs, drawn with matplotlib as PNG or SVG."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from atomic_write import atomic_write
from evaluation.roc_curve import RocCurve, compute_roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evaluation.score_files import Scores

FORMATS = (".png", ".svg")
DPI = 150
LOWEST_FAR = 1e-6
DET_RATES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
HISTOGRAM_BINS = 80
Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Curves by name: x and y of the points."""


class PlotError(ValueError):
    """Error for a diagram that cannot be drawn; the message tells the user what to do."""


def check_plot_file(path: str) -> None:
    """Raise PlotError unless a file name ends in .png or .svg and matplotlib is installed."""
    if Path(path).suffix.lower() not in FORMATS:
        raise PlotError(f"--out: must end in {' or '.join(FORMATS)}, got {path}; correct the name")
    if importlib.util.find_spec("matplotlib") is None:
        lock = Path(__file__).resolve().parents[1] / "requirements" / "plot.txt"
        raise PlotError(
            "plot: requires the package matplotlib, got an environment without it; run `python -m "
            f"pip install --no-deps --require-hashes -r {lock}`"
        )


def draw_roc(scores: Mapping[str, Scores], path: str) -> None:
    """Plot the TAR of sets against the FAR, with a logarithmic axis of the FAR."""

    def draw(axes: Axes) -> None:
        lowest = 1.0
        for name, curve in _curves(scores):
            lowest = min(lowest, float(curve.far[curve.far > 0].min()))
            # The first points have the FAR 0, which a logarithmic axis cannot show: LOWEST_FAR
            # stands for 0.
            axes.plot(
                np.maximum(curve.far, LOWEST_FAR), curve.tar, label=name, drawstyle="steps-post"
            )
        axes.set(xscale="log", xlim=(max(lowest / 2, LOWEST_FAR), 1), ylim=(0, 1.005))
        axes.set(xlabel="false accept rate", ylabel="true accept rate")

    _save(draw, path)


def draw_det(scores: Mapping[str, Scores], path: str) -> None:
    """Plot the FRR of sets against the FAR, both on the scale of standard normal quantiles.

    Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    probit = np.vectorize(NormalDist().inv_cdf, otypes=[float])

    def draw(axes: Axes) -> None:
        for name, curve in _curves(scores):
            inside = (curve.far > 0) & (curve.far < 1) & (curve.tar > 0) & (curve.tar < 1)
            axes.plot(probit(curve.far[inside]), probit(1 - curve.tar[inside]), label=name)
        ticks, labels = probit(DET_RATES), [f"{100 * rate:g}" for rate in DET_RATES]
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels)
        ends = (ticks[0], ticks[-1])
        axes.set(xlim=ends, ylim=ends, xlabel="false accept rate [%]")
        axes.set(ylabel="false reject rate [%]")

    _save(draw, path)


def draw_histogram(scores: Mapping[str, Scores], path: str) -> None:
    """Draw the distributions of the cosines of same-person and of different-person pairs."""

    def draw(*panels: Axes) -> None:
        for axes, (name, (cosines, issame)) in zip(panels, scores.items(), strict=True):
            bins = np.linspace(cosines.min(), np.nextafter(cosines.max(), 2), HISTOGRAM_BINS + 1)
            for chosen, label in ((issame, "same person"), (~issame, "different people")):
                axes.hist(cosines[chosen], bins, density=True, alpha=0.6, label=label)
            axes.set(title=name, xlabel="cosine", ylabel="density")

    _save(draw, path, panels=len(scores))


def draw_runs(panels: Mapping[str, Curves], x_label: str, path: str) -> None:
    """Draw curves of runs, one panel for each key of metrics.jsonl.

    Parameters
    ----------
    panels
        For each key, a dict from the name of a run to the curve of the run.
    """

    def draw(*axes: Axes) -> None:
        for panel, (key, curves) in zip(axes, panels.items(), strict=True):
            for name, (x, y) in curves.items():
                panel.plot(x, y, label=name, marker="." if len(x) < 20 else "")
            panel.set(xlabel=x_label, ylabel=key)

    _save(draw, path, panels=len(panels))


def _curves(scores: Mapping[str, Scores]) -> list[tuple[str, RocCurve]]:
    return [(name, compute_roc_curve(*found)) for name, found in scores.items()]


def _save(draw: Callable[..., None], path: str, panels: int = 1) -> None:
    """Call ``draw`` with the axes of each panel, and write the diagram."""
    import matplotlib
    from matplotlib.figure import Figure

    # The salt of SVG IDs is fixed and no date is written, so equal diagrams give equal files.
    with matplotlib.rc_context({"svg.hashsalt": "evaluation", "svg.fonttype": "none"}):
        figure: Figure = Figure(figsize=(6.4, 4.2 * panels), layout="constrained")
        all_axes = figure.subplots(panels, squeeze=False)[:, 0]
        draw(*all_axes)
        for axes in all_axes:
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[1]:
                axes.legend()
        form = Path(path).suffix.lower()[1:]
        metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
        with atomic_write(path) as file:
            figure.savefig(file, format=form, dpi=DPI, metadata=metadata)

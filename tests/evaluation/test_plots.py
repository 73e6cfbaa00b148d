# SPDX-License-Identifier: Apache-2.0
"""Diagrams of scores and runs: what they show, and their files."""

from __future__ import annotations

import warnings
from statistics import NormalDist

import numpy as np
import pytest
from matplotlib.figure import Figure

from evaluation import plots
from evaluation.roc_curve import compute_roc_curve
from evaluation.score_files import Scores


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    issame = np.arange(400) % 2 == 0
    return {"lfw": Scores(np.round(rng.normal(issame, 0.6), 2), issame)}


@pytest.fixture
def shown(monkeypatch):
    """Return ``shown(draw, *arguments)``, the axes that a function draws on."""

    def show(draw, *arguments):
        axes = []

        def save(paint, path, panels=1):
            axes.extend(Figure().subplots(panels, squeeze=False)[:, 0])
            paint(*axes)

        monkeypatch.setattr(plots, "_save", save)
        draw(*arguments)
        return axes

    return show


def test_a_roc_diagram_shows_every_point_of_the_curve(scores, shown):
    (axes,) = shown(plots.draw_roc, scores, "a.png")
    x, y = axes.lines[0].get_data()
    curve = compute_roc_curve(*scores["lfw"])
    assert y.tolist() == curve.tar.tolist()
    assert x.tolist() == np.maximum(curve.far, 1e-6).tolist()
    assert axes.get_xscale() == "log" and axes.lines[0].get_label() == "lfw"


def test_a_det_diagram_has_normal_scales(scores, shown):
    (axes,) = shown(plots.draw_det, scores, "a.png")
    x, y = axes.lines[0].get_data()
    curve = compute_roc_curve(*scores["lfw"])
    rates = {(round(NormalDist().cdf(a), 9), round(NormalDist().cdf(b), 9)) for a, b in zip(x, y)}
    points = set(zip(np.round(curve.far, 9).tolist(), np.round(1 - curve.tar, 9).tolist()))
    assert len(rates) > 20 and rates <= points
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert axes.get_xticks()[labels.index("5")] == pytest.approx(NormalDist().inv_cdf(0.05))


def test_a_histogram_has_the_density_of_each_kind_of_pairs(scores, shown):
    (axes,) = shown(plots.draw_histogram, scores, "a.png")
    assert axes.get_legend_handles_labels()[1] == [
        "same person",
        "different people",
    ]
    for bars in axes.containers:
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)


def test_each_key_of_a_run_has_a_panel(shown):
    panels = {"loss": {"a": ([1, 2], [3.0, 2.0])}, "lr": {"a": ([1, 2], [0.1, 0.1])}}
    axes = shown(plots.draw_runs, panels, "step", "a.png")
    assert [panel.get_ylabel() for panel in axes] == ["loss", "lr"]
    assert axes[0].lines[0].get_data()[1].tolist() == [3, 2]


def test_equal_diagrams_are_equal_files(scores, tmp_path):
    for name in ("a.svg", "b.svg", "a.png"):
        plots.draw_histogram(scores, str(tmp_path / name))
    one, two = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == two and b"different people" in one
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_other_endings_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(plots.PlotError, match="--out: must end in .png or .svg, got a.pdf"):
        plots.check_plot_file("a.pdf")
    plots.check_plot_file("a.PNG")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(plots.PlotError, match="requires the package matplotlib, .*plot.txt"):
        plots.check_plot_file("a.png")


def test_a_run_whose_name_gives_no_legend_is_drawn_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        panels = {"loss": {"_run": ([1, 2], [3.0, 2.0])}}
        plots.draw_runs(panels, "step", str(tmp_path / "a.svg"))
    assert b">loss<" in (tmp_path / "a.svg").read_bytes()

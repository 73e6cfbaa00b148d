# SPDX-License-Identifier: Apache-2.0
"""Coverage of the intervals of `verify`, in a short simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tools.interval_coverage import main, measure_coverage, simulate


@pytest.mark.parametrize("effect", [0.0, 0.3])
@pytest.mark.parametrize("accuracy", [0.8, 0.98])
def test_about_95_percent_of_the_intervals_contain_the_true_accuracy(accuracy, effect):
    found = measure_coverage(100, 1200, accuracy, effect=effect, simulations=300)
    assert 0.9 <= found <= 0.985  # four standard deviations of the simulation around 95 %


def test_thresholds_of_folds_have_the_coverage_of_a_fixed_threshold():
    found = measure_coverage(100, 1200, 0.9, effect=0.1, simulations=150, folds=True)
    assert 0.88 <= found <= 1


def test_a_simulated_set_has_the_accuracy_that_it_is_drawn_for():
    generator = np.random.default_rng(0)
    distances, issame, people = simulate(generator, 500, 200_000, 0.9, 0.1)
    assert np.mean((distances < 2) == issame) == pytest.approx(0.9, abs=0.01)
    assert issame.mean() == 0.5 and ((people[:, 0] == people[:, 1]) == issame).all()


def test_the_exit_code_says_whether_all_fractions_are_in_the_range(capsys):
    options = ["--people", "100", "--pairs", "400", "--accuracies", "0.9", "--effects", "0"]
    assert main([*options, "--simulations", "1"]) == 1
    assert "outside the range 92 % to 97.5 %" in capsys.readouterr().out

# SPDX-License-Identifier: Apache-2.0
"""Simulate how often the 95 % confidence intervals of verification contain the true accuracy.

python tools/interval_coverage.py --simulations 2000

Each simulation draws people, and pairs of images with their distances.  Half of the pairs show one
person, the others two people.  Every person has a random effect on the distances of all pairs that
show the person; the option --effects sets the fraction of the variance that these effects cause.
Without --folds, a fixed threshold classifies the pairs, and the true accuracy is known.  With
--folds, each of ten folds is classified with the threshold that is best on the nine other folds.
The tool then uses the mean accuracy of all simulations as the true accuracy.

The output is a table with the percentage of intervals that contain the true accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from evaluation.intervals import RateInterval, rate_interval
from evaluation.verification import FOLDS, classify_pairs

RANGE = (0.92, 0.975)
"""Smallest and largest accepted coverage.

The coverage is the fraction of intervals that contain the true accuracy.
"""


def simulate(
    generator: np.random.Generator, people: int, pairs: int, accuracy: float, effect: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw P random pairs; return distances (P,), ``issame`` (P,) and the people on them (P, 2).

    The threshold 2 classifies a pair correctly with the probability `accuracy`.  `effect` is the
    fraction of the variance of the distances that the people cause.
    """
    effects = generator.normal(0, 1, people)
    issame = np.arange(pairs) % 2 == 0
    one = generator.integers(0, people, pairs)
    two = np.where(issame, one, (one + generator.integers(1, people, pairs)) % people)
    of_people = np.where(issame, effects[one], (effects[one] + effects[two]) / np.sqrt(2))
    noise = np.sqrt(effect) * of_people + np.sqrt(1 - effect) * generator.normal(0, 1, pairs)
    margin = NormalDist().inv_cdf(accuracy) - noise  # above 0: the pair is classified correctly
    distances = 2 + 0.3 * np.where(issame, -margin, margin)
    return np.clip(distances, 0, 3.999), issame, np.stack([one, two], axis=1)


def find_interval(
    distances: np.ndarray, issame: np.ndarray, people: np.ndarray, folds: bool
) -> RateInterval:
    """Return the accuracy of P pairs, with its 95 % interval.

    With ``folds``, the threshold of each fold is the best one on the other folds; else it is 2.
    """
    correct = classify_pairs(distances, issame) if folds else (distances < 2) == issame
    found = rate_interval(correct, people, folds=FOLDS if folds else 0)
    assert found is not None
    return found


def measure_coverage(
    people: int,
    pairs: int,
    accuracy: float,
    *,
    effect: float,
    simulations: int,
    folds: bool = False,
    seed: int = 0,
) -> float:
    """Return the fraction of simulated sets whose interval contains the true accuracy."""
    generator = np.random.default_rng(seed)
    found = [
        find_interval(*simulate(generator, people, pairs, accuracy, effect), folds)
        for _ in range(simulations)
    ]
    true = float(np.mean([interval.rate for interval in found])) if folds else accuracy
    return float(np.mean([interval.low <= true <= interval.high for interval in found]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of coverages in percent; return 1 if a coverage is outside RANGE, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--simulations",
        type=int,
        default=2000,
        metavar="N",
        help="number of simulations per value in the table (default: 2000)",
    )
    parser.add_argument(
        "--people",
        type=int,
        nargs="+",
        default=[100, 400],
        metavar="N",
        help="numbers of people (default: 100 400)",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        nargs="+",
        default=[1200, 6000],
        metavar="N",
        help="numbers of pairs (default: 1200 6000)",
    )
    parser.add_argument(
        "--accuracies",
        type=float,
        nargs="+",
        default=[0.8, 0.9, 0.95, 0.98],
        metavar="A",
        help="true accuracies of the fixed threshold (default: 0.8 0.9 0.95 0.98)",
    )
    parser.add_argument(
        "--effects",
        type=float,
        nargs="+",
        default=[0.0, 0.1, 0.3],
        metavar="E",
        help="fractions to simulate: the part of the variance of the distances that is due to "
        "differences between people (default: 0 0.1 0.3)",
    )
    parser.add_argument(
        "--folds", action="store_true", help="select the threshold of each fold on the other folds"
    )
    options = parser.parse_args(arguments)
    outside = 0
    print("people  pairs  accuracy  " + "  ".join(f"effect {e:g}" for e in options.effects))
    for people in options.people:
        for pairs in options.pairs:
            for accuracy in options.accuracies:
                found = [
                    measure_coverage(
                        people,
                        pairs,
                        accuracy,
                        effect=effect,
                        simulations=options.simulations,
                        folds=options.folds,
                    )
                    for effect in options.effects
                ]
                outside += sum(not RANGE[0] <= fraction <= RANGE[1] for fraction in found)
                cells = "  ".join(f"{100 * fraction:8.2f}" for fraction in found)
                print(f"{people:6}  {pairs:5}  {accuracy:8g}  {cells}", flush=True)
    print(f"{outside} values are outside the range {100 * RANGE[0]:g} % to {100 * RANGE[1]:g} %")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())

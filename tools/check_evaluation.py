# SPDX-License-Identifier: Apache-2.0
"""Compare the metrics of evaluation/ with scikit-learn, pyeer and cimat on random scores.

python -m venv ~/oracles
~/oracles/bin/pip install "numpy<2" scikit-learn pyeer cimat
python tools/check_evaluation.py --python ~/oracles/bin/python

The option --python names the interpreter of an environment with these three packages, which may
differ from the environment of this tool.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.intervals import dyadic_variance, rate_interval
from evaluation.roc import roc_points
from evaluation.roc_curve import area_under_curve, compute_roc_curve, equal_error_rate
from evaluation.verification import fold_accuracies
from launch.config.paths import expand_home

WORKER = Path(__file__).parent / "evaluation_checks" / "oracle_worker.py"
TOLERANCE = 1e-9
PAIRS, PEOPLE = 2000, 150
Result = tuple[str, float | None, str]
"""Name of the comparison, largest difference (None: not comparable), and the reason for None."""


def make_case(name: str, seed: int) -> dict[str, Any]:
    """Return random scores of image pairs, with the people on the images and a threshold.

    Parameters
    ----------
    name
        Kind of scores.  "normal": normally distributed.  "ties": rounded to one decimal.  "equal":
        all scores are equal.  "perfect": each same-person pair has a higher score than each
        different-person pair.  "wrong": the reverse of "perfect".
    seed
        Random seed.
    """
    rng = np.random.default_rng(seed)
    issame = rng.random(PAIRS) < 0.4
    people = rng.integers(0, PEOPLE, (PAIRS, 2))
    people[issame, 1] = people[issame, 0]
    people[~issame, 1] = (people[~issame, 0] + 1 + people[~issame, 1] % (PEOPLE - 1)) % PEOPLE
    effect = rng.normal(0, 0.1, PEOPLE)[people].sum(axis=1)
    scores = np.clip(rng.normal(0.45 * issame, 0.2) + effect, -0.99, 0.99)
    if name == "ties":
        scores = np.round(scores, 1)
    elif name == "equal":
        scores = np.full(PAIRS, 0.25)
    elif name in ("perfect", "wrong"):
        scores = np.where(issame == (name == "perfect"), 0.75, 0.25)
    arrays = {"scores": scores, "issame": issame, "people": people}
    return {"name": name, "threshold": 0.21, **{k: v.tolist() for k, v in arrays.items()}}


def compare(case: dict[str, Any], oracle: dict[str, Any]) -> Iterator[Result]:
    """Yield the comparisons of our results for a case with the results of `oracle_worker.py`.

    Parameters
    ----------
    case
        Scores from `make_case`.
    oracle
        Results of scikit-learn, pyeer and cimat for these scores.
    """
    scores, issame = np.array(case["scores"]), np.array(case["issame"], bool)
    curve = compute_roc_curve(scores, issame)
    yield "scikit-learn roc_curve", _difference([curve.far, curve.tar], oracle, "far", "tar"), ""
    thresholds = [np.nan if t is None else t for t in oracle["thresholds"]]
    yield "scikit-learn thresholds", float(np.nanmax(np.abs(curve.thresholds - thresholds))), ""
    yield "scikit-learn roc_auc_score", abs(area_under_curve(curve) - oracle["auc"]), ""
    accuracies, _ = fold_accuracies(2 - 2 * scores, issame)
    yield "scikit-learn KFold accuracies", _difference([accuracies], oracle, "accuracies"), ""
    if case["name"] == "equal":
        yield "pyeer EER", None, "pyeer has no threshold above all scores, and returns the EER 1"
    else:
        yield "pyeer EER", abs(equal_error_rate(curve) - oracle["eer"]), ""
    negatives = np.sort(scores[~issame])[::-1]
    for key, far in (("fmr100", 0.01), ("fmr1000", 0.001)):
        (point,) = roc_points(scores[issame], negatives, len(negatives), [far])
        yield _compare_operating_point(f"pyeer {key.upper()}", point.tar, oracle[key], far)
    yield from _compare_intervals(case, oracle)


def _difference(ours: Sequence[Any], oracle: dict[str, Any], *keys: str) -> float:
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(oracle[key]))))
        for a, key in zip(ours, keys, strict=True)
    )


def _compare_operating_point(
    name: str, tar: float | None, theirs: tuple[float, float], far: float
) -> Result:
    fmr, fnmr = theirs
    if tar is not None and fmr > far:
        return name, None, f"pyeer takes the nearest FMR, {fmr:.4f}, which lies above {far}"
    if tar is None:
        return name, None, "too few different-person pairs for this FMR"
    if abs(1 - tar - fnmr) > TOLERANCE and fmr < far:
        return name, None, f"pyeer has no threshold above all scores, and takes FMR {fmr:.4f}"
    return name, abs(1 - tar - fnmr), ""


def _compare_intervals(case: dict[str, Any], oracle: dict[str, Any]) -> Iterator[Result]:
    scores, issame = np.array(case["scores"]), np.array(case["issame"], bool)
    people = np.array(case["people"])
    for key, chosen in (("fnmr", issame), ("fmr", ~issame)):
        errors = (scores[chosen] > case["threshold"]) != issame[chosen]
        name, rate, count = f"cimat interval of {key.upper()}", errors.mean(), errors.sum()
        found = rate_interval(errors, people[chosen], corrected=False)
        assert found is not None
        variance = dyadic_variance(errors - rate, people[chosen]) if 0 < rate < 1 else 0.0
        if 0 < rate < 1 and variance < rate * (1 - rate) / len(errors):
            note = "only cimat's interval uses a variance below that of independent pairs"
            yield name, None, note
        elif count in (1, len(errors) - 1):
            note = "cimat replaces an end of the interval if exactly 1 pair is wrong or 1 is right"
            yield name, None, note
        else:
            ends = np.array([found.low, found.high])
            yield name, float(np.abs(ends - oracle[f"{key}_interval"]).max()), ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all cases and print the differences; return 1 if one exceeds TOLERANCE, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python",
        required=True,
        type=expand_home,
        help="interpreter of an environment with scikit-learn, pyeer and cimat",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of random cases of each kind (default: 5)"
    )
    options = parser.parse_args(arguments)
    kinds = ["normal", "ties", "equal", "perfect", "wrong"]
    cases = [make_case(name, seed) for name in kinds for seed in range(options.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.json"
        path.write_text(json.dumps(cases))
        done = subprocess.run(
            [options.python, WORKER, path], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[tuple[str, str], list[Result]] = {}
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        for result in compare(case, json.loads(line)):
            found.setdefault((case["name"], result[0]), []).append(result)
    return _print(found)


def _print(found: dict[tuple[str, str], list[Result]]) -> int:
    failed = 0
    for (kind, name), results in found.items():
        compared = [value for _, value, _ in results if value is not None]
        notes = {note for _, value, note in results if value is None}
        largest = max(compared, default=0.0)
        failed += largest > TOLERANCE
        print(
            f"{kind:8} {name:32} {len(compared)} of {len(results)} were compared, "
            f"largest difference {largest:.1e}{''.join(f'; {note}' for note in sorted(notes)[:1])}"
        )
    print("failed" if failed else "all equal where the definitions agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

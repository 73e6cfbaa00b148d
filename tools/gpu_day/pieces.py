# SPDX-License-Identifier: Apache-2.0
"""Compare operators on GPU and CPU, and check DALI's batches (step 2 of `tools.gpu_day`)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tools.gpu_day.device_comparison import Agreement, compare
from tools.gpu_day.graph_operators import cases
from tools.gpu_day.hand_over_race import wrong_batches
from tools.gpu_day.prelu_forms import SHAPE, SMALL_SHAPE, TOLERANCE, forms, measure_forms
from tools.gpu_day.results import Parts, sentence
from tools.gpu_day.training_operators import compare_training

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

BATCHES = 200
MAX_NAMED_PROBLEMS = 5


def measure(setting: Setting, parts: Parts) -> None:
    """Check MXNet's operators, implementations of PReLU, and the transfer of batches from DALI."""
    reference, device = setting.contexts()
    with parts.part("operators of graphs"):
        found, faults = [], []
        for case in cases():
            try:
                found.append(compare(case, reference, device))
            # An operator that raises an error must not stop the comparison of the others.
            except Exception as error:
                faults.append(f"{case.op} of {case.place}: {sentence(error)}")
        _report(parts, "operators of graphs", found, faults)
    with parts.part("operators of the step"):
        _report(parts, "operators of the step", list(compare_training(reference, device)), [])
    with parts.part("PReLU"):
        for name, result in measure_forms(device, SHAPE if setting.gpus else SMALL_SHAPE).items():
            what, right = f"PReLU, {name}", result["error"] <= TOLERANCE
            parts.require(what, right, result, f"error against NumPy {result['error']:.1e}")
        if reason := forms(device)[1]:
            parts.add("PReLU, fused", "skipped", reason)
    with parts.part("hand-over"):
        sizes = (64, 112, 1.0) if setting.gpus else (8, 48, 0.125)
        counts = wrong_batches(device, BATCHES, *sizes)
        right = not counts["wrong"] + counts["wrong_later"]
        parts.require("hand-over", right, counts, f"batches differ from their source: {counts}")


def _report(parts: Parts, what: str, found: list[Agreement], faults: list[str]) -> None:
    """Print the result of each operator, and record one result for all operators."""
    for result in found:
        right = "right" if result.holds else "WRONG"
        kind = "value and gradient" if result.gradient else "value"
        print(f"{right}  {result.op:32} {result.error:.1e}  {kind:20} {result.place}")
    wrong = [
        f"{result.op} of {result.place}: the relative difference is {result.error:.1e}; at most "
        f"{result.tolerance:.0e} is allowed"
        for result in found
        if not result.holds
    ]
    problems = [*faults, *wrong]
    if not found:
        raise RuntimeError(f"no operator could be compared; the first error was: {problems[0]}")
    worst = max(found, key=lambda result: result.error / result.tolerance)
    value = {
        "operators": len({result.op for result in found}),
        "cases": len(found),
        "with gradient": Counter(result.gradient for result in found)[True],
        "largest error": f"{worst.error:.1e} of {worst.op}",
    }
    unnamed = len(problems) - MAX_NAMED_PROBLEMS
    more = f", and {unnamed} more in the log" if unnamed > 0 else ""
    for problem in problems:
        print(problem)
    parts.require(what, not problems, value, "; ".join(problems[:MAX_NAMED_PROBLEMS]) + more)

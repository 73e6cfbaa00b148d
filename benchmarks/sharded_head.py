# SPDX-License-Identifier: Apache-2.0
"""Time heads whose class centres are distributed over ranks:  python benchmarks/sharded_head.py

A step is forward, backward and the update of the class centres by SGD with momentum and weight
decay, on ranks of this host that exchange arrays with Gloo.  Our rows run Horovod and the code of
run_train.py.  With --torch and --insightface, the rows ``partial_fc_v2`` run InsightFace's
PartialFC_V2 with the same embeddings, labels and class centres, once with the SGD of its
train_v2.py and once with PyTorch's fused SGD.  Without sampling, all first losses must be equal.

The memory of a row is the sum of the peaks of all ranks, minus this sum for the same head with
1,000 classes.  The sent bytes of a row are those that the kernel counts on the TCP connections of a
rank, including the control messages that Horovod sends every 5 ms.  The passed bytes are the sizes
of the arrays that our head passes to Horovod.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.inputs import MARGINS
from benchmarks.harness.process import Candidate, Process
from benchmarks.harness.timing import Result
from launch.config.paths import home_path

RANKS_MODULE = "benchmarks.harness.ranks"
OURS, PARTIAL_FC = "benchmarks.steps.sharded_steps", "benchmarks.steps.partial_fc_steps"
FEW_CLASSES, FEW_STEPS = 1_000, 4
SECONDS = 420.0
COLUMNS = (
    *report.COLUMNS[:3],
    ("CPU ms", "cpu_milliseconds", "{:,.1f}"),
    ("MiB above C=1000", "mib_above_few", "{:,.0f}"),
    ("largest rank", "rank_mib_above_few", "{:,.0f}"),
    ("KiB sent", "sent_kib", "{:,.1f}"),
    ("KiB passed", "passed_kib", "{:,.1f}"),
    ("with C=1000", "few_passed_kib", "{:,.1f}"),
    ("steps", "steps", "{}"),
    ("x ours", "times_ours", "{:.2f}"),
    ("x ours, CPU", "times_ours_cpu", "{:.2f}"),
)
LEGEND = (
    "ms: median milliseconds per step. CPU ms: processor time of all threads of the busiest rank, "
    "per step. MiB above C=1000: peak memory of all ranks minus that with 1,000 classes; largest "
    "rank: the largest such difference of a single rank. KiB sent: over TCP, per step and rank. "
    "KiB passed: arrays passed to Horovod, per step and rank; with C=1000: the same with 1,000 "
    "classes. x ours: time of this row divided by the time of the first row whose name begins with "
    "'ours'; x ours, CPU: the same ratio of the CPU ms."
)


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser, SECONDS)
    parser.add_argument(
        "--insightface",
        type=home_path,
        help="folder recognition/arcface_torch of a checkout of InsightFace, for the rows "
        "partial_fc_v2; requires --torch",
    )
    parser.add_argument(
        "--classes", type=int, default=1_000_000, help="number of classes (default: 1000000)"
    )
    parser.add_argument(
        "--embedding-size", type=int, default=128, help="embedding size (default: 128)"
    )
    parser.add_argument("--batch", type=int, default=64, help="embeddings per rank (default: 64)")
    parser.add_argument(
        "--ranks",
        type=int,
        nargs="+",
        default=[2],
        help="numbers of ranks; the output has a table for each (default: 2)",
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1.0, 0.1],
        help="sampling rates (fractions of the classes that a step uses); the output has a table "
        "for each rate (default: 1.0 0.1)",
    )
    parser.add_argument(
        "--margin",
        choices=sorted(MARGINS),
        default="cosface",
        help="margin of the head; InsightFace's code is faster with cosface, which its "
        "configurations for WebFace use (default: cosface)",
    )
    arguments = parser.parse_args()
    if problem := find_problem(arguments):
        print(f"sharded_head: {problem}", file=sys.stderr)
        return 2
    groups = [group(arguments, n, rate) for n in arguments.ranks for rate in arguments.rates]
    return report.run(
        "distributed heads: forward, backward, update",
        groups,
        arguments,
        columns=COLUMNS,
        legend=LEGEND,
        result_of=ShardedResult,
    )


def find_problem(arguments: argparse.Namespace) -> str:
    """Return a sentence about the first option with an invalid value; empty if there is none."""
    for option in ("classes", "embedding_size", "batch"):
        value = getattr(arguments, option)
        if value < 1:
            return (
                f"--{option.replace('_', '-')}: must be 1 or more, got {value}; use 128, for "
                "example"
            )
    if bad := [n for n in arguments.ranks if n < 1]:
        return f"--ranks: must be 1 or more, got {bad[0]}; use 2, for example"
    if bad := [rate for rate in arguments.rates if not 0 < rate <= 1]:
        return f"--rates: must be above 0 and at most 1, got {bad[0]:g}; use 0.1, for example"
    folder = arguments.insightface
    if folder and not (folder / "partial_fc_v2.py").is_file():
        return (
            f"--insightface: must be a folder with partial_fc_v2.py, got {folder}; give "
            "recognition/arcface_torch of a checkout of InsightFace"
        )
    return ""


def group(arguments: argparse.Namespace, ranks: int, rate: float) -> list[Candidate]:
    """Return the heads to compare at one number of ranks and one sampling rate."""
    settings: dict[str, Any] = {
        "num_classes": arguments.classes,
        "embedding_size": arguments.embedding_size,
        "batch": arguments.batch,
        "ranks": ranks,
        "sample_rate": rate,
        "margin": arguments.margin,
    }
    label = f"C={arguments.classes} d={arguments.embedding_size} B={arguments.batch} ranks={ranks}"
    label += f" rate={rate:g}"
    ours = [
        candidate(f"ours {label}", OURS, {**settings, "fused": True}),
        candidate(f"ours unfused {label}", OURS, {**settings, "fused": False}),
    ]
    if arguments.quick:
        ours = ours[:1]
    if not arguments.insightface:
        return ours
    settings["insightface"] = str(Path(arguments.insightface).resolve())
    return [
        *ours,
        candidate(f"partial_fc_v2 {label}", PARTIAL_FC, {**settings, "fused": False}),
        candidate(f"partial_fc_v2 fused SGD {label}", PARTIAL_FC, {**settings, "fused": True}),
    ]


def candidate(name: str, module: str, settings: dict[str, Any]) -> Candidate:
    """Return the `Candidate` for one head on all its ranks."""
    ranks = settings["ranks"]
    launcher = "horovodrun" if module == OURS else "none"
    started = {"ranks": ranks, "launcher": launcher, "module": module, "settings": settings}
    return Candidate(
        name,
        RANKS_MODULE,
        started,
        "torch" if module == PARTIAL_FC else "",
        images=ranks * settings["batch"],
        same_value=settings["sample_rate"] == 1,
    )


@dataclass
class ShardedResult(Result):
    """Measurements of a distributed head, with memory and bytes per step.

    Parameters
    ----------
    few
        Measured values of the same head with FEW_CLASSES classes, as its process answered them.
    answer
        Measured values of the last turn, as the process of the candidate answered them.
    cpu_milliseconds
        CPU milliseconds per step of the busiest rank, one value per turn.
    """

    few: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    cpu_milliseconds: list[float] = field(default_factory=list)

    def first_turn(self) -> None:
        """Measure the candidate with few classes, then run a warm-up step and a timed step."""
        started = self.candidate.settings
        settings = {**started["settings"], "num_classes": FEW_CLASSES}
        with Process(replace(self.candidate, settings={**started, "settings": settings})) as small:
            self.few = small.ask(steps=FEW_STEPS, untimed=1)
        super().first_turn()

    def turn(self, steps: int, untimed: int = 1) -> dict[str, Any]:
        self.answer = super().turn(steps, untimed)
        self.cpu_milliseconds.append(self.answer["cpu_milliseconds"])
        return self.answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        few, found = self.few, self.answer
        each = [
            peak - small
            for peak, small in zip(found["rank_peak_mib"], few["rank_peak_mib"], strict=True)
        ]
        row = super().row(ours) | {"mib_above_few": sum(each), "rank_mib_above_few": max(each)}
        row["cpu_milliseconds"] = statistics.median(self.cpu_milliseconds)
        if isinstance(ours, ShardedResult):
            cpu = statistics.median(ours.cpu_milliseconds)
            row["times_ours_cpu"] = row["cpu_milliseconds"] / cpu
        for key in ("sent_kib", "passed_kib"):
            if key in found:
                row |= {key: found[key], f"few_{key}": few[key]}
        return row


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Measure how much a loader slows CPU training:  python benchmarks/step_throughput.py

A step is forward, backward and update of a network and an ArcFace head.  The rows ``ours
synthetic`` train on one fixed batch, which gives an upper bound of the images/s.  The other rows
train on batches that a loader prepares at the same time on the same cores.  Our default loader and
``data.loader=cpu`` (Gluon's DataLoader with our order and augmentation) yield the same images in
the same order, so their losses must agree.  The two networks are MobileFaceNet and a very small
variant of it, whose short steps demand more images/s of the loader.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import record_set, report, timing
from benchmarks.harness.process import CORES, Candidate
from benchmarks.harness.timing import Result
from launch.config.paths import home_path

FED = "benchmarks.steps.fed_steps"
# Each network is a MobileFaceNet; the value is its width factor.
NETS = {
    "mobilefacenet-0.0625": 0.0625,
    "mobilefacenet": 1.0,
}
EMBEDDING_SIZE = 128
TURN_S = 4.0  # A measurement is long, because a loader delivers batches in bursts.
COLUMNS = (
    *report.RATE_COLUMNS[:2],
    ("waiting", "waiting", "{:.1%}"),
    ("of synthetic", "of_synthetic", "{:.2f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("turns", "steps", "{}"),
)
LEGEND = (
    "images/s: median rate. waiting: fraction of the time in which the next batch is not ready and "
    "the device is idle. of synthetic: rate divided by the rate on one fixed batch."
)


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--records", type=home_path, help="folder of the record set (default: synthetic)"
    )
    parser.add_argument("--batch", type=int, default=64, help="images per step (default: 64)")
    parser.add_argument(
        "--nets",
        nargs="+",
        choices=NETS,
        default=list(NETS),
        help="networks to train (default: all)",
    )
    arguments = parser.parse_args()
    nets = arguments.nets[:1] if arguments.quick else arguments.nets
    with record_set.prepared_set(arguments.records, arguments.batch) as (records, rec, batch):
        return report.run(
            "training step on a loader's batches",
            [group(records, rec, net, batch) for net in nets],
            arguments,
            rates=True,
            columns=COLUMNS,
            legend=LEGEND,
            result_of=FedResult,
        )


def group(records: Path, image_rec: Path, net: str, batch: int) -> list[Candidate]:
    """Return `Candidate` objects that train one network, on a fixed batch and with each loader.

    Parameters
    ----------
    records, image_rec, batch
        Folder of the record set, path of its .rec, and batch size, as `record_set.prepared_set`
        yields them.
    net
        Name of the network, a key of NETS.
    """

    def row(name: str, loader: str, workers: int = 0) -> Candidate:
        settings: dict[str, Any] = {"loader": loader, "workers": workers, "batch": batch}
        options = {"embedding_size": EMBEDDING_SIZE, "width": NETS[net]}
        settings |= {"net": "mobilefacenet", "options": options}
        settings |= {"records": str(records), "image_rec": str(image_rec)}
        settings |= {"scratch": str(image_rec.parent)}
        same = loader in ("dali", "cpu")
        return Candidate(
            name=f"{name} {net} B={batch}",
            module=FED,
            settings=settings,
            images=batch,
            same_value=same,
            same_size=True,
            steady=True,
        )

    return [
        row("ours synthetic", "synthetic"),
        row("ours random-access", "dali"),
        row(f"ours cpu loader workers={CORES}", "cpu", CORES),
        row("gluon dataloader cv2 workers=0", "gluon"),
        row(f"gluon dataloader cv2 workers={CORES}", "gluon", CORES),
    ]


@dataclass
class FedResult(Result):
    """Measurements of training on a loader's batches.

    Each element of `waits` is the fraction of a measurement's time spent waiting for batches.
    """

    waits: list[float] = field(default_factory=list)

    @property
    def needed_s(self) -> float:
        """Return the seconds of the next measurement: TURN_S, or one step if a step is longer."""
        return max(TURN_S, self.step_s)

    def first_turn(self) -> None:
        """Run one timed step, after the warm-up steps of benchmarks/steps/fed_steps.py."""
        self.turn(1, 0)

    def later_turn(self) -> None:
        """Run timed steps for TURN_S seconds."""
        self.turn(min(timing.MAX_TURN_STEPS, max(1, round(TURN_S / self.step_s))), 0)

    def turn(self, steps: int, untimed: int = 1) -> dict[str, Any]:
        """Run timed steps, and record the fraction of their time spent waiting for batches."""
        answer = super().turn(steps, untimed)
        self.waits.append(answer["waited"] / answer["elapsed"])
        return answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the measurements as a result row.

        If ``ours`` trains on the fixed batch, the row also holds its images/s as a fraction of the
        images/s of ``ours``.
        """
        row = super().row(ours) | {"waiting": statistics.median(self.waits)}
        if ours and ours.candidate.settings["loader"] == "synthetic":
            row["of_synthetic"] = 1 / row["times_ours"]
        return row


if __name__ == "__main__":
    sys.exit(main())

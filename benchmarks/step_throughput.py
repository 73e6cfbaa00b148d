# SPDX-License-Identifier: Apache-2.0
"""What a loader costs training on the CPU:  python benchmarks/step_throughput.py

Forward, backward and update of network and ArcFace head, on one fixed batch, an upper bound,
and on the batches that our loaders or a Gluon DataLoader make meanwhile, on the same cores.  Ours,
DALI's and the one without it (``data.loader=cpu``), give the same images in the same order, and
their losses must agree; the Gluon DataLoader is that of loader_throughput.py and has its own order.
One network is so small that its steps are as short as a CPU allows, the other is MobileFaceNet.
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
NETS = {"mobilefacenet-0.0625": 0.0625, "mobilefacenet": 1.0}  # name in a row: width
EMBEDDING = 128
TURN_S = 4.0  # of steps: so that what a loader makes in bursts is spread over them
COLUMNS = (
    *report.RATE_COLUMNS[:2],
    ("waiting", "waiting", "{:.1%}"),
    ("of synthetic", "of_synthetic", "{:.2f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("turns", "steps", "{}"),
)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--records", type=home_path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=64, help="images of a step (64)")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="which ones")
    arguments = parser.parse_args()
    nets = arguments.nets[:1] if arguments.quick else arguments.nets
    with record_set.prepared(arguments.records, arguments.batch) as (*files, batch):
        groups = [group(*files, net, batch) for net in nets]
        title = "training step on a loader's batches"
        return report.run(
            title, groups, arguments, rates=True, columns=COLUMNS, result_of=FedResult
        )


def group(records: Path, image_rec: Path, net: str, batch: int) -> list[Candidate]:
    """Return the loaders that feed one network, the fixed batch first.

    Parameters
    ----------
    records, image_rec, batch
        As `record_set.prepared` yields them.
    net
        A name of NETS.
    """

    def row(name: str, loader: str, workers: int = 0) -> Candidate:
        settings = {"loader": loader, "workers": workers, "net": "mobilefacenet", "batch": batch}
        settings |= {"options": {"embedding_size": EMBEDDING, "width": NETS[net]}}
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
    """What was measured of training on a loader so far."""

    waits: list[float] = field(default_factory=list)

    @property
    def needed_s(self) -> float:
        """Return the seconds that must remain for a later turn."""
        return max(TURN_S, self.expected)

    def first_turn(self) -> None:
        """Let it do a step; those before are done (benchmarks/steps/fed_steps.py)."""
        self.turn(1, 0)

    def later_turn(self) -> None:
        """Let it do steps for some seconds."""
        self.turn(min(timing.MAX_STEPS, max(1, round(TURN_S / self.expected))), 0)

    def turn(self, steps: int, untimed: int = 1) -> dict[str, Any]:
        """Take down how much of the time was spent waiting, too."""
        answer = super().turn(steps, untimed)
        self.waits.append(answer["waited"] / answer["elapsed"])
        return answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the row of the JSON; ours is what has the fixed batch, if it takes part."""
        row = super().row(ours) | {"waiting": statistics.median(self.waits)}
        if ours and ours.candidate.settings["loader"] == "synthetic":
            row["of_synthetic"] = 1 / row["times_ours"]
        return row


if __name__ == "__main__":
    sys.exit(main())

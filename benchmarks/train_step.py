# SPDX-License-Identifier: Apache-2.0
"""How long a whole training step takes:  python benchmarks/train_step.py [--torch PYTHON]

Forward, backward and update of network and ArcFace head on a fixed random batch.  PyTorch runs the
same networks (as many parameters, which is checked) in channels_last, its fastest memory format on
CPUs; GluonFR its own MobileFaceNet.  ``--profile`` shows where our step spends its time.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate, Process

MXNET, TORCH = "benchmarks.steps.mxnet_steps", "benchmarks.steps.torch_steps"
EMBEDDING = {"mobilefacenet": 128}  # others: 512
PROFILED_STEPS = 3
SMALLEST_SHARE = 0.002  # of an operator with a line of its own
# MXNet times operators one by one only where it does not run them in bulk.
ONE_BY_ONE = {"MXNET_EXEC_BULK_EXEC_TRAIN": "0"}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--nets", nargs="+", default=["mobilefacenet", "iresnet50"])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 16], help="one per net")
    parser.add_argument("--classes", type=int, default=10_000, help="of the head (10000)")
    parser.add_argument("--width", type=float, default=1.0, help="of MobileFaceNet (1.0)")
    parser.add_argument("--profile", action="store_true", help="share of each operator of ours")
    arguments = parser.parse_args()
    if len(arguments.nets) != len(arguments.batches):
        parser.error(f"--batches: one per net, got {arguments.batches} for {arguments.nets}")
    groups = [
        group(net, batch, arguments.classes, arguments.width)
        for net, batch in zip(arguments.nets, arguments.batches, strict=True)
    ]
    if arguments.quick:  # the first net, without our plain form
        groups = [[candidate for candidate in groups[0] if "plain" not in candidate.name]]
    if arguments.profile:
        for ours, *_ in groups:
            print("\n".join(profile(ours)), flush=True)
        return 0
    return report.run("training step: forward, backward, update", groups, arguments)


def group(net: str, batch: int, num_classes: int, width: float) -> list[Candidate]:
    """Return the candidates of one network."""
    options = {"embedding_size": EMBEDDING.get(net, 512)}
    if net == "mobilefacenet":
        options["width"] = width
    settings = {"what": "train", "net": net, "options": options, "batch": batch}
    settings |= {"num_classes": num_classes, "image_size": 112}

    def mxnet(kind: str, needs: str = "") -> Candidate:
        same = kind.startswith("ours")
        return Candidate(
            f"{kind} {net} B={batch}",
            MXNET,
            {"kind": kind, **settings},
            needs,
            images=batch,
            same_value=same,
            same_size=same,
        )

    candidates = [mxnet("ours")]
    if net == "mobilefacenet":
        candidates += [mxnet("ours plain"), mxnet("gluonfr", "gluonfr")]
    name = f"torch {net} channels_last B={batch}"
    return [*candidates, Candidate(name, TORCH, settings, "torch", images=batch, same_size=True)]


def profile(candidate: Candidate) -> list[str]:
    """Return the lines of a table: milliseconds and share of each operator in a step."""
    with Process(
        Candidate(candidate.name, MXNET, candidate.settings, environment=ONE_BY_ONE)
    ) as process:
        process.ask(steps=1, untimed=1)
        found = process.ask(profile=PROFILED_STEPS)["profile"]
    total = sum(found.values())
    lines = [
        f"{candidate.name}: {total:,.0f} ms in operators",
        f"{'ms':>10} {'share':>7}  operator",
    ]
    large = {name: value for name, value in found.items() if value >= SMALLEST_SHARE * total}
    shown = sorted(large.items(), key=lambda item: -item[1])
    shown.append((f"{len(found) - len(large)} others", total - sum(large.values())))
    for name, value in shown:
        lines.append(f"{value:10,.1f} {100 * value / total:6.1f}%  {name}")
    return lines


if __name__ == "__main__":
    sys.exit(main())

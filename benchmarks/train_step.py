# SPDX-License-Identifier: Apache-2.0
"""Time a complete training step:  python benchmarks/train_step.py [--torch PYTHON]

A step is forward, backward and update of a network and an ArcFace head on a fixed random batch.
PyTorch trains the same networks in channels_last, its fastest memory format on CPUs; the benchmark
checks that the numbers of parameters are equal.  GluonFR trains its own MobileFaceNet.
``--profile`` prints the time of each operator in our step.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.process import Candidate, Process

MXNET, TORCH = "benchmarks.steps.mxnet_steps", "benchmarks.steps.torch_steps"
EMBEDDING_SIZES = {"mobilefacenet": 128}
DEFAULT_EMBEDDING_SIZE = 512
PROFILED_STEPS = 3
MIN_PROFILE_FRACTION = 0.002

# MXNet cannot time single operators while it executes several of them as one bulk.
ONE_BY_ONE = {"MXNET_EXEC_BULK_EXEC_TRAIN": "0"}


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--nets",
        nargs="+",
        default=["mobilefacenet", "iresnet50"],
        help="networks to train (default: mobilefacenet iresnet50)",
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[64, 16],
        help="images per step, one number per network (default: 64 16)",
    )
    parser.add_argument(
        "--classes", type=int, default=10_000, help="number of classes of the head (default: 10000)"
    )
    parser.add_argument(
        "--width",
        type=float,
        default=1.0,
        help="width multiplier of MobileFaceNet (default: 1.0)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print the time of each operator in our training step",
    )
    arguments = parser.parse_args()
    if len(arguments.nets) != len(arguments.batches):
        parser.error(
            f"--batches: expected one number per network, got {arguments.batches} for "
            f"{arguments.nets}; give {len(arguments.nets)} numbers"
        )
    groups = [
        group(net, batch, arguments.classes, arguments.width)
        for net, batch in zip(arguments.nets, arguments.batches, strict=True)
    ]
    if arguments.quick:
        # Omit all networks but the first, and the row with Gluon's operators.
        groups = [[candidate for candidate in groups[0] if "plain" not in candidate.name]]
    if arguments.profile:
        for ours, *_ in groups:
            print("\n".join(profile(ours)), flush=True)
        return 0
    return report.run("training step: forward, backward, update", groups, arguments)


def group(net: str, batch: int, num_classes: int, width: float) -> list[Candidate]:
    """Return `Candidate` objects that train one network with our code, GluonFR and PyTorch."""
    options: dict[str, Any] = {"embedding_size": EMBEDDING_SIZES.get(net, DEFAULT_EMBEDDING_SIZE)}
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
    """Profile training steps; return the lines of a table with the ms per step of each operator."""
    with Process(
        Candidate(candidate.name, MXNET, candidate.settings, environment=ONE_BY_ONE)
    ) as process:
        process.ask(steps=1, untimed=1)
        found = process.ask(profile=PROFILED_STEPS)["profile"]
    total = sum(found.values())
    lines = [
        f"{candidate.name}: {total:,.0f} ms per step in operators",
        f"{'ms':>10} {'of all':>7}  operator",
    ]
    large = {name: value for name, value in found.items() if value >= MIN_PROFILE_FRACTION * total}
    shown = sorted(large.items(), key=lambda item: -item[1])
    shown.append((f"{len(found) - len(large)} other operators", total - sum(large.values())))
    for name, value in shown:
        lines.append(f"{value:10,.1f} {100 * value / total:6.1f}%  {name}")
    return lines


if __name__ == "__main__":
    sys.exit(main())

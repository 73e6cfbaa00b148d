# SPDX-License-Identifier: Apache-2.0
"""Time a training step of every network:  python benchmarks/net_step.py

A step is forward, backward and update of a network on a fixed random batch; the loss is a weighted
sum of the embeddings.  The rows ``gluoncv2`` train a network whose trunk (the layers before the
embedding layers) comes from gluoncv2.  The embedding layers, and the stride of the first
convolution, are those of our network.  gluoncv2's GhostNet runs without oneDNN, because oneDNN
refuses to concatenate the channels of GhostNet.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import report
from benchmarks.harness.process import Candidate
from nets import ALIASES, NETS

MODULE = "benchmarks.steps.net_steps"
WITHOUT_ONEDNN = {"MXNET_MKLDNN_ENABLED": "0"}
STOCK_NETS = "dpn68 dpn107 dpn131 inception_resnet_v2 ghostnet mobilenet_v3 efficientnet_b0".split()
"""Networks whose trunk gluoncv2 also has."""
BATCH_IMAGES = 16
SECONDS = 2400.0


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    report.add_options(parser, SECONDS)
    own = [name for name in NETS if name not in ALIASES]
    parser.add_argument("--nets", nargs="+", default=own, help="networks to train (default: all)")
    parser.add_argument(
        "--batch", type=int, default=BATCH_IMAGES, help=f"images per step (default: {BATCH_IMAGES})"
    )
    arguments = parser.parse_args()
    nets = arguments.nets[:1] if arguments.quick else arguments.nets
    groups = [group(net, arguments.batch) for net in nets]
    return report.run("training step of a network", groups, arguments)


def group(net: str, batch: int) -> list[Candidate]:
    """Return the implementations of one network that the benchmark compares."""
    kinds = ("ours", "gluoncv2") if net in STOCK_NETS else ("ours",)
    return [
        Candidate(
            f"{kind} {net} B={batch}",
            MODULE,
            {"kind": kind, "net": net, "batch": batch},
            images=batch,
            same_size=True,
            environment=WITHOUT_ONEDNN if (kind, net) == ("gluoncv2", "ghostnet") else {},
        )
        for kind in kinds
    ]


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Time the embedding of images:  python benchmarks/embedding_rate.py

A step turns uint8 RGB pixels in memory into embeddings of unit length.  The row ``ours`` uses
`interchange.load_embedder` with its default options: ONNX Runtime computes the network.  In the row
``ours mxnet``, MXNet computes the same network.  The row ``onnxruntime`` runs the exported ONNX
file in ONNX Runtime with the default settings of ONNX Runtime.  The row ``gluonfr`` runs GluonFR's
own MobileFaceNet; GluonFR has no IResNet.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.process import Candidate

MODULE = "benchmarks.steps.embedding_steps"
EMBEDDING_SIZES = {"mobilefacenet": 128}
DEFAULT_EMBEDDING_SIZE = 512


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument(
        "--nets",
        nargs="+",
        default=["mobilefacenet", "iresnet50"],
        help="networks to run (default: mobilefacenet iresnet50)",
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[1, 64],
        help="numbers of images per call (default: 1 64)",
    )
    parser.add_argument(
        "--width",
        type=float,
        default=1.0,
        help="width multiplier of our MobileFaceNet (default: 1.0)",
    )
    arguments = parser.parse_args()
    nets = arguments.nets[:1] if arguments.quick else arguments.nets
    groups = [group(net, batch, arguments.width) for net in nets for batch in arguments.batches]
    return report.run("embedding of images, from pixels to unit vectors", groups, arguments)


def group(net: str, batch: int, width: float) -> list[Candidate]:
    """Return a `Candidate` for each implementation that embeds images with one network."""
    options: dict[str, Any] = {"embedding_size": EMBEDDING_SIZES.get(net, DEFAULT_EMBEDDING_SIZE)}
    if net == "mobilefacenet":
        options["width"] = width

    def candidate(kind: str, needs: str = "") -> Candidate:
        settings = {"kind": kind, "net": net, "options": options, "batch": batch}
        same = kind != "gluonfr"
        name = f"{kind} {net} B={batch}"
        return Candidate(name, MODULE, settings, needs, images=batch, same_value=same)

    candidates = [candidate("ours"), candidate("ours mxnet"), candidate("onnxruntime")]
    return [*candidates, candidate("gluonfr", "gluonfr")] if net == "mobilefacenet" else candidates


if __name__ == "__main__":
    sys.exit(main())

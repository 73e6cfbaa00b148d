# SPDX-License-Identifier: Apache-2.0
"""How large the nets are and how much they compute.

python tools/net_size.py [NET ...]

Per net at 112x112 pixels: parameters, multiply-accumulates of convolutions and dense layers for
one image, size of the weights in float32.  Counted on the symbol graph: nothing is allocated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass

import mxnet as mx
from mxnet import gluon

from nets import NETS, build_net

IMAGE_SIZE = (112, 112)  # pixels


@dataclass(frozen=True)
class Size:
    """What one net holds and computes."""

    parameters: int
    """Learned numbers, the fixed scale of the last batch normalisation among them, as publications
    count: without running statistics and without class centres."""
    running_statistics: int
    """Means and variances that batch normalisation keeps."""
    macs: int
    """Multiply-accumulates for one image."""

    @property
    def mebibytes(self) -> float:
        """Weights and running statistics in float32: what a file of them takes."""
        return 4 * (self.parameters + self.running_statistics) / 2**20


def main(argv: list[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)} (all)")
    names = parser.parse_args(argv).nets or list(NETS)
    try:
        sizes = {name: measure(build_net(name)) for name in names}
    except ValueError as error:
        print(f"net_size: {error}", file=sys.stderr)
        return 2
    print(f"{'net':16}{'parameters':>14}{'MACs':>14}{'float32':>12}")
    for name, size in sizes.items():
        print(
            f"{name:16}{size.parameters / 1e6:12.3f} M{size.macs / 1e9:12.3f} G"
            f"{size.mebibytes:8.1f} MiB"
        )
    return 0


def measure(net: gluon.HybridBlock, image_size: tuple[int, int] = IMAGE_SIZE) -> Size:
    """Return the size of a net, initialised or not.

    Parameters
    ----------
    net
        Takes (B, 3, H, W); every parameter's shape is known.
    image_size
        H and W in pixels.
    """
    learned = running = 0
    for name, parameter in net.collect_params().items():
        if name.endswith(("running_mean", "running_var")):
            running += math.prod(parameter.shape)
        else:
            learned += math.prod(parameter.shape)
    return Size(learned, running, count_macs(net, image_size))


def count_macs(net: gluon.HybridBlock, image_size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of convolutions and dense layers for one image.

    One output value of a convolution takes one multiply-accumulate per weight of its filter, so a
    layer takes height x width of its output x number of its weights; a dense layer one per weight.
    Batch normalisation, activations and sums are not counted, as nowhere in the field.

    A `nets.blocks.PReLU` is written for CPUs as two depthwise products, convolutions in the graph.
    They are the rectifier and left out: their weights are computed (from the slopes, which
    `Size.parameters` holds once), where those of a layer are parameters.
    """
    graph = net(mx.sym.var("data"))
    internals = graph.get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, *image_size))
    shape_of = dict(zip(internals.list_outputs(), shapes, strict=True))
    nodes = json.loads(graph.tojson())["nodes"]
    total = 0
    for node in nodes:
        if node["op"] not in ("Convolution", "FullyConnected"):
            continue
        weight = nodes[node["inputs"][1][0]]
        if weight["op"] != "null":
            continue
        places = math.prod(shape_of[f"{node['name']}_output"][2:])
        total += places * math.prod(shape_of[weight["name"]])
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

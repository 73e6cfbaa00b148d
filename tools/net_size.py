# SPDX-License-Identifier: Apache-2.0
"""Print the number of parameters and of multiply-accumulates (MACs) of each net.

python tools/net_size.py [NET ...]

The MACs are those for one image of 112x112 pixels.  The tool derives all numbers from the symbol
graph and allocates no parameters.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass

import mxnet as mx
from mxnet import gluon

from nets import ALIASES, NETS, build_net

IMAGE_SIZE = (112, 112)


@dataclass(frozen=True)
class Size:
    """Number of parameters and of multiply-accumulates (MACs) of one network."""

    parameters: int
    """Number of parameters, counted as in papers.

    The number includes the fixed scale of the last batch normalisation.  It does not include the
    running statistics and the class centres.
    """
    running_statistics: int
    """Number of running means and variances of batch normalisation."""
    macs: int
    """Number of multiply-accumulates for one image."""

    @property
    def mebibytes(self) -> float:
        """Return the size in MiB of all parameters and running statistics, stored as float32."""
        return 4 * (self.parameters + self.running_statistics) / 2**20


def main(argv: list[str]) -> int:
    """Run the tool with the arguments of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "nets", nargs="*", metavar="NET", help=f"one of {', '.join(NETS)} (default: all nets)"
    )
    names = parser.parse_args(argv).nets or [name for name in NETS if name not in ALIASES]
    try:
        sizes = {name: measure(build_net(name)) for name in names}
    except ValueError as error:
        print(f"net_size: {error}", file=sys.stderr)
        return 2
    print(f"{'net':24}{'parameters':>14}{'MACs':>14}{'float32':>12}")
    for name, size in sizes.items():
        print(
            f"{name:24}{size.parameters / 1e6:12.3f} M{size.macs / 1e9:12.3f} G"
            f"{size.mebibytes:8.1f} MiB"
        )
    return 0


def measure(net: gluon.HybridBlock, image_size: tuple[int, int] = IMAGE_SIZE) -> Size:
    """Count the parameters and the multiply-accumulates (MACs) of a net.

    The net need not be initialised.

    Parameters
    ----------
    net
        Net with inputs (B, 3, H, W); the shapes of all parameters must be known.
    image_size
        (height, width) of the images in pixels.
    """
    learned = running = 0
    for name, parameter in net.collect_params().items():
        if name.endswith(("running_mean", "running_var")):
            running += math.prod(parameter.shape)
        else:
            learned += math.prod(parameter.shape)
    return Size(learned, running, count_macs(net, image_size))


def count_macs(net: gluon.HybridBlock, image_size: tuple[int, int]) -> int:
    """Return the number of multiply-accumulates of all convolutions and dense layers for one image.

    A convolution needs one multiply-accumulate for each weight at each output pixel.  A dense layer
    needs one for each weight.  As in papers, batch normalisation, activations and sums do not
    count.

    On the CPU, `nets.blocks.PReLU` computes two depthwise convolutions.  They do not count, because
    PReLU is an activation.  The weights of these two convolutions are computed from the slopes, so
    they are no parameters of the graph; this distinguishes them from layers.
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
        # A convolution whose weights are computed, not parameters, belongs to a PReLU.
        if weight["op"] != "null":
            continue
        pixels = math.prod(shape_of[f"{node['name']}_output"][2:])
        total += pixels * math.prod(shape_of[weight["name"]])
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

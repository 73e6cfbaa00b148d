# SPDX-License-Identifier: Apache-2.0
"""Print the numbers of parameters and multiply-accumulates (MACs) of each net, and its size in MiB.

python tools/net_size.py [NET ...]

The MACs are those for one image of 112x112 pixels.  The column float32 is the size of the
parameters and of the running statistics of batch normalisation.  The tool derives all numbers from
the symbol graph and allocates no parameters.
"""

from __future__ import annotations

import argparse
import sys

from nets import ALIASES, NETS, build_net
from nets.layer_table import measure


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Command line: describe a network.

python -m nets describe NAME [key=value ...] [--image-size HEIGHTxWIDTH]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from launch.config.cli import apply_overrides
from launch.config.configuration import ConfigError, read_choice
from nets import NETS, build_net
from nets.layer_table import list_layers, measure

MEBIBYTE = 2**20
MAX_SIDE_PIXELS = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 0, or 2 after an error message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m nets", description="Describe a network.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "describe",
        help="print the layers with shapes, parameters, multiply-accumulates and memory",
    )
    command.add_argument("name", metavar="NAME", help=f"one of {', '.join(NETS)}")
    command.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings of the net, such as width=0.5"
    )
    command.add_argument(
        "--image-size", default="112x112", metavar="HxW", help="height x width in pixels"
    )
    options = parser.parse_args(arguments)
    try:
        text = describe(options.name, options.settings, options.image_size)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


def describe(name: str, settings: Sequence[str], image_size: str = "112x112") -> str:
    """Return the table of a network's layers as text.

    Parameters
    ----------
    name
        Name of the network, a key of ``NETS``.
    settings
        Settings of the network as ``key=value`` or ``net.key=value``.
    image_size
        Height and width of the images in pixels, for example "112x96".

    Raises
    ------
    ValueError
        If the name, a setting or the image size is invalid.
    """
    sides = read_size(image_size)
    keys = [text if text.startswith("net.") else f"net.{text}" for text in settings]
    raw = apply_overrides({"net": {"name": name}}, keys)
    problems: list[str] = []
    choice = read_choice("net", raw["net"], NETS, problems)
    if problems:
        raise ConfigError("; ".join(problems))
    net = build_net(choice.name, sides, **choice.options)
    rows = [
        [
            layer.name,
            layer.operator,
            "x".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
            f"{layer.macs:,}",
            f"{layer.activation_bytes / MEBIBYTE:.3f}",
        ]
        for layer in list_layers(net, sides)
    ]
    size = measure(net, sides)
    summary = [
        f"{choice.name} with {', '.join(f'{k}={v}' for k, v in choice.options.items())}",
        f"images of {sides[0]}x{sides[1]} pixels; shapes and memory are those of one image",
        f"parameters: {size.parameters:,}; together with {size.running_statistics:,} running "
        f"statistics, they need {size.mebibytes:.1f} MiB in float32",
        f"multiply-accumulates of convolutions, linear layers and matrix products: {size.macs:,}",
        f"activation memory, the outputs of all layers: {size.activation_bytes / MEBIBYTE:.1f} MiB",
    ]
    head = ["layer", "operator", "output", "parameters", "MACs", "MiB"]
    return "\n".join([*_aligned([head, *rows]), "", *summary])


def read_size(text: str) -> tuple[int, int]:
    """Read a height and a width in pixels, for example "112x96"."""
    found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text, re.ASCII)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found or max(sides) > MAX_SIDE_PIXELS:
        raise ValueError(
            f"--image-size: must be HEIGHTxWIDTH with sides up to {MAX_SIDE_PIXELS} pixels, got "
            f"{text[:80]!r}; the usual size is 112x112"
        )
    return sides


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return the rows as lines; align the first three columns left and the other columns right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Command ``identify``: find the people of probe images in a gallery (MegaFace, TinyFace, 1:N)."""

from __future__ import annotations

import argparse

from evaluation.commands import identify_megaface, identify_people, identify_tinyface

HELP = "identify probes in a gallery: MegaFace, TinyFace, or open-set 1:N"
PROTOCOLS = {
    "megaface": identify_megaface,
    "tinyface": identify_tinyface,
    "people": identify_people,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand with its options for each protocol."""
    protocols = parser.add_subparsers(dest="protocol", required=True)
    for name, module in PROTOCOLS.items():
        module.add_options(protocols.add_parser(name, help=module.HELP, description=module.HELP))


def run(options: argparse.Namespace) -> None:
    """Compute the rates of a protocol; print tables, and write the requested files."""
    PROTOCOLS[options.protocol].run(options)

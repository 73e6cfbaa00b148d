# SPDX-License-Identifier: Apache-2.0
"""Command ``templates``: verify and identify people, each by several images (IJB, videos)."""

from __future__ import annotations

import argparse

from evaluation.commands import templates_ijb, templates_list, templates_ytf

HELP = "verify and identify sets of images: IJB-B, IJB-C, YouTube Faces, or your own lists"
PROTOCOLS = {
    "ijbb": templates_ijb,
    "ijbc": templates_ijb,
    "ytf": templates_ytf,
    "list": templates_list,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand with its options for each protocol."""
    protocols = parser.add_subparsers(dest="protocol", required=True)
    for name, module in PROTOCOLS.items():
        module.add_options(protocols.add_parser(name, help=module.HELP, description=module.HELP))


def run(options: argparse.Namespace) -> None:
    """Compute the rates of a protocol; print tables, and write the requested files."""
    PROTOCOLS[options.protocol].run(options)

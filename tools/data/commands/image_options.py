# SPDX-License-Identifier: Apache-2.0
"""Arguments that the commands on image files share."""

from __future__ import annotations

import argparse

from tools.data.commands.set_options import require_number
from tools.data.image_fitting import SAMPLINGS


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add the argument --size; `tools.data.image_size.parse_size` reads its value."""
    parser.add_argument(
        "--size",
        default="112",
        help="image size in pixels: HEIGHTxWIDTH, or the side of a square (default: 112)",
    )


def add_coding(parser: argparse.ArgumentParser, images: str) -> None:
    """Add the arguments --quality and --sampling.

    ``images`` says in the help texts which images are encoded, such as "aligned images".
    """
    parser.add_argument(
        "--quality", type=int, default=95, help=f"JPEG quality of {images} (default: 95)"
    )
    parser.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="4:2:0",
        help=f"chroma sampling of {images} (default: 4:2:0)",
    )


def check_quality(options: argparse.Namespace) -> None:
    """Raise ValueError if --quality is out of range."""
    require_number("--quality", options.quality, 1, 100)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add --processes; `tools.data.worker_pool.choose_processes` reads its value."""
    parser.add_argument(
        "--processes", type=int, help="number of processes (default: one for each core)"
    )

# SPDX-License-Identifier: Apache-2.0
"""Command ``stats``: count images and identities of a record set, and describe its JPEGs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from atomic_write import atomic_write
from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.commands.set_options import add_set, require_number
from tools.data.histogram import draw_histogram
from tools.data.output_folder import explained_writing
from tools.data.record_sets import opened
from tools.data.set_statistics import count_images, describe_set

HELP = "count the images and identities of a record set, and describe its JPEGs"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set(parser)
    parser.add_argument(
        "--png", type=home_path, metavar="FILE", help="draw a histogram of images per identity"
    )
    parser.add_argument("--json", type=home_path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument(
        "--sample",
        type=int,
        default=2000,
        help="number of images whose headers are read (default: 2000)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the numbers, and write no file"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    require_number("--sample", options.sample, 1, 1 << 31)
    for name, path in (("--png", options.png), ("--json", options.json)):
        _check_file(name, path)
    with opened([options.set]) as found:
        facts = describe_set(found.records, options.sample)
        print_facts(facts)
        if options.dry_run:
            return 0
        if options.json is not None:
            _write(options.json, (json.dumps(facts, indent=1) + "\n").encode())
        if options.png is not None:
            title = f"{facts['images']} images of {facts['identities']} identities"
            _write(options.png, draw_histogram(count_images(found.records), title))
    return 0


def _check_file(name: str, path: Path | None) -> None:
    """Check that the suffix fits, that the folder exists, and that the path can be a file."""
    if path is None:
        return
    if path.suffix.lower() != f".{name[2:]}":
        raise ValueError(
            f"{name}: must end in .{name[2:]}, got {printable(path)}; correct the name"
        )
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise ValueError(
            f"{name}: must be a file in an existing folder, got {printable(path)}; correct the path"
        )


def _write(path: Path, data: bytes) -> None:
    with explained_writing(path), atomic_write(path) as file:
        file.write(data)


def print_facts(facts: dict[str, Any]) -> None:
    """Print statistics of a set, one fact per line."""
    per, sample = facts["images_per_identity"], facts["sample"]
    rows = [
        ("images", f"{facts['images']}, {facts['bytes'] / 1e6:.1f} MB"),
        ("identities", f"{facts['identities']} with images, num_classes {facts['num_classes']}"),
        ("size", f"{facts['height']}x{facts['width']} pixels (height x width)"),
        ("images per identity", f"{_spread(per)}, mean {per['mean']}"),
        ("identities with one image", str(facts["identities_with_one_image"])),
        ("sampled images", str(sample["images"])),
        ("bytes per image", _spread(sample["bytes_per_image"])),
        ("JPEG quality, estimated", _spread(sample["jpeg_quality"])),
        ("chroma sampling", _shares(sample["chroma_sampling"])),
        ("formats", _shares(sample["formats"])),
        ("image sizes", _shares(sample["image_sizes"])),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


def _spread(quantiles: dict[str, int]) -> str:
    if not quantiles:
        return "none"
    return (
        f"{quantiles['smallest']} to {quantiles['largest']}, median {quantiles['median']}, "
        f"quartiles {quantiles['quarter']} and {quantiles['three quarters']}"
    )


def _shares(counts: dict[str, int], shown: int = 5) -> str:
    listed = ", ".join(f"{name}: {count}" for name, count in list(counts.items())[:shown])
    return listed + ", ..." * (len(counts) > shown)

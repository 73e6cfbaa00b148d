# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and their checks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch.config.paths import expand_home
from launch.environment.provenance import VersionAction

MODEL_HELP = (
    "model: a run folder, a checkpoint folder, a symbol prefix (PREFIX of PREFIX-symbol.json), or "
    "an .onnx, .pth, .safetensors or .params file"
)


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options ``--model``, ``--batch-size``, ``--device`` and ``--version``."""
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument(
        "--model",
        "--checkpoint",
        dest="model",
        required=required,
        type=expand_home,
        metavar="MODEL",
        help=MODEL_HELP,
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="images per forward pass (default: 64)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="device that runs the network; auto uses the first GPU (with several ranks, one "
        "GPU per rank), or the CPU if there is no GPU",
    )


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--sets``."""
    parser.add_argument(
        "--sets",
        required=True,
        nargs="+",
        type=expand_home,
        metavar="BIN",
        help="verification sets: .bin files, or folders of .bin files",
    )


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--sets`` and ``--json``."""
    add_sets(parser)
    parser.add_argument(
        "--json",
        type=expand_home,
        metavar="FILE",
        help="also write the results to this JSON file",
    )


def add_rank_option(parser: argparse.ArgumentParser, default: Sequence[int]) -> None:
    """Add the option ``--ranks`` of the identification commands."""
    parser.add_argument(
        "--ranks",
        nargs="+",
        type=int,
        default=list(default),
        metavar="K",
        help="ranks K for which to compute rank-K rates",
    )


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError if the value of ``--batch-size`` is below 1."""
    if batch_size < 1:
        raise ValueError(f"--batch-size: must be at least 1, got {batch_size}; 64 is usual")


def check_output_file(option: str, path: str | None) -> None:
    """Raise ValueError if the path of an option is a folder, or lies in no existing folder."""
    if not path:
        return
    if not Path(path).resolve().parent.is_dir():
        raise ValueError(
            f"{option}: the folder of the file does not exist, got {path}; create the folder first"
        )
    if Path(path).is_dir():
        raise ValueError(f"{option}: must name a file, got the folder {path}; add a file name")

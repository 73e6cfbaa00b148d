# SPDX-License-Identifier: Apache-2.0
"""Command line: import models of other projects, and export models for other programs.

python -m interchange import PATH --out FOLDER
python -m interchange export --model MODEL --format symbol|onnx|safetensors --out PATH
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.image_files import find_images, read_images
from interchange.export import FORMATS, Provenance, export_model
from interchange.file_format import ACCEPTED
from interchange.model import InterchangeError, StoredModel
from interchange.open_model import open_model
from launch.config.command_errors import run_command
from launch.config.paths import expand_home
from launch.environment.provenance import VersionAction, commit

if TYPE_CHECKING:
    import numpy as np

MAX_CALIBRATION_IMAGES = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 0, or 2 after an error message on stderr."""
    options = build_parser().parse_args(arguments)
    command = {"import": run_import, "export": run_export}[options.command]
    return run_command(lambda: command(options))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m interchange",
        description="Import models of other projects; export models for other programs.",
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_import_options(
        commands.add_parser("import", help="convert a model to the checkpoint format")
    )
    _add_export_options(
        commands.add_parser("export", help="write a model as MXNet, ONNX or safetensors files")
    )
    return parser


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("path", type=expand_home, metavar="PATH", help=f"model: {ACCEPTED}")
    parser.add_argument(
        "--out",
        required=True,
        type=expand_home,
        metavar="FOLDER",
        help="folder to create; --model and train.pretrained accept this folder as a model",
    )
    for name, meaning in (
        ("mean", "to subtract from the pixels"),
        ("std", "by which to divide the pixels after the subtraction"),
    ):
        parser.add_argument(
            f"--{name}",
            type=_numbers,
            metavar="X[,X,X]",
            help=f"number {meaning}, or one number per channel (default: the value that the "
            "file states, else the usual value for its format)",
        )
    parser.add_argument(
        "--colour-order",
        choices=("rgb", "bgr"),
        help="channel order of the images that the network expects (default: the order that the "
        "file states, else rgb)",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="size of the images in pixels (default: the size that follows from the file, else "
        "112x112)",
    )
    parser.add_argument(
        "--calibrate",
        nargs="+",
        type=expand_home,
        metavar="IMAGE|FOLDER",
        help="aligned faces; if an ONNX file has folded batch normalisations into convolutions, "
        "the statistics of these batch normalisations are computed from the faces; at most "
        f"{MAX_CALIBRATION_IMAGES} faces are used",
    )


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument(
        "--model", required=True, type=expand_home, metavar="MODEL", help=f"model: {ACCEPTED}"
    )
    parser.add_argument("--format", required=True, choices=FORMATS, help="format to write")
    parser.add_argument(
        "--out",
        required=True,
        type=expand_home,
        metavar="PATH",
        help="file to write; with --format symbol, PREFIX of the two files PREFIX-symbol.json and "
        "PREFIX-0000.params",
    )
    parser.add_argument(
        "--scaling",
        choices=("inside", "outside"),
        help="onnx only: input of the exported network for pixels x from 0 to 255: x itself "
        "(inside, default), or (x - 127.5) / 127.5 (outside)",
    )
    parser.add_argument(
        "--with-centres",
        action="store_true",
        help="onnx and symbol only: add an output fc7, the cosines between the embedding and the "
        "class centres of the head",
    )
    parser.add_argument(
        "--licence",
        metavar="TEXT",
        help="licence of the weights, to be written into the model card and, for onnx and "
        "safetensors, also into the exported file",
    )


def _numbers(text: str) -> float | tuple[float, ...]:
    """Convert the text of an option to one number, or to three numbers."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(
            f"must be one number, or three numbers separated by commas, got {text!r}; "
            "127.5 is usual"
        )
    return values[0] if len(values) == 1 else values


def _size(text: str) -> tuple[int, int]:
    """Convert the text HEIGHTxWIDTH of an option to (height, width)."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH in pixels, got {text!r}; 112x112 is usual"
        )
    return int(match[1]), int(match[2])


def run_import(options: argparse.Namespace) -> None:
    """Read a model of any supported format, and write it as a checkpoint."""
    out = Path(options.out)
    _check_parent(out)
    if out.exists():
        raise InterchangeError(
            f"--out: must name a new folder, got {out}, which exists; name another folder"
        )
    print(f"reading {options.path}", flush=True)
    settings = {
        "mean": options.mean,
        "std": options.std,
        "colour_order": options.colour_order,
        "image_size": options.image_size,
    }
    images = None
    if options.calibrate:
        images = _calibration_images(options)
        print(f"calibrating with {len(images)} images", flush=True)
    model = open_model(options.path, **settings, calibration_images=images)
    _print_notices(model)
    from interchange.write_checkpoint import write_checkpoint

    write_checkpoint(model, out)
    print(f"{out}: {_describe(model)}")
    print(f"next: python -m evaluation verify --model {out} --sets FILE.bin")


def _calibration_images(options: argparse.Namespace) -> np.ndarray:
    """Return the pixels (N, height, width, 3) of the images of the option ``--calibrate``."""
    import numpy as np

    from interchange.read_onnx import stated_image_size
    from interchange.recognise import USUAL_IMAGE_SIZE

    paths = find_images(options.calibrate)[:MAX_CALIBRATION_IMAGES]
    size = options.image_size or stated_image_size(options.path) or USUAL_IMAGE_SIZE
    pixels = []
    for image in read_images(paths, size):
        if image.pixels is None:
            raise InterchangeError(
                f"{image.path}: {image.reason}; calibrate with readable images only"
            )
        pixels.append(image.pixels)
    return np.stack(pixels)


def run_export(options: argparse.Namespace) -> None:
    """Read a model of any supported format, and write it in the chosen format."""
    out = Path(options.out)
    _check_parent(out)
    if out.is_dir():
        raise InterchangeError(f"--out: must name a file, got the folder {out}; add a file name")
    if options.scaling and options.format != "onnx":
        raise InterchangeError(
            f"--scaling: applies to --format onnx only, got --format {options.format}; omit "
            "--scaling"
        )
    print(f"reading {options.model}", flush=True)
    model = open_model(options.model)
    _print_notices(model)
    print(f"writing and checking {options.format}", flush=True)
    files = export_model(
        model,
        out,
        format=options.format,
        scaling=options.scaling or "inside",
        with_centres=options.with_centres,
        provenance=Provenance(options.licence, commit()),
        notify=_print_notice,
    )
    print(f"{', '.join(map(str, files))}: {_describe(model)}")
    print(f"next: python -m evaluation compare-images --model {out} A.jpg B.jpg")


def _check_parent(out: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise InterchangeError(
            f"--out: the folder above must exist, got {out}; create {out.parent} first"
        )


def _print_notices(model: StoredModel) -> None:
    for notice in model.notices:
        _print_notice(notice)


def _print_notice(notice: str) -> None:
    print(f"interchange: {notice}", file=sys.stderr)


def _describe(model: StoredModel) -> str:
    height, width = model.image_size
    size = model.net["embedding_size"]
    return (
        f"{model.net['name']}, images of {height}x{width} pixels, embeddings of {size} dimensions"
    )


if __name__ == "__main__":
    sys.exit(main())

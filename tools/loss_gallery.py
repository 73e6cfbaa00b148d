# SPDX-License-Identifier: Apache-2.0
"""Plots of what each loss does: a small net, digits, two dimensions.

python tools/loss_gallery.py --mnist FOLDER --out FOLDER [--only LOSS ...]

Trains a small net to two dimensions with each loss and writes OUT/<loss>.png, where training and
test images lie in the plane, OUT/index.html with all of them and their test accuracy, and
OUT/sheet.jpg with the test images of all losses in one small image.
Without --mnist the digits are drawn here.  Settings: tools/gallery/settings.py; docs/gallery.md.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from atomic_write import atomic_write
from launch.config.paths import home_path
from launch.ranks.malloc import keep_memory
from launch.ranks.threads import share_cores

if __name__ == "__main__":  # before mxnet is imported
    share_cores()
    keep_memory()

import ops
from heads import HEADS
from tools.digits import Digits, draw_digits, read_mnist
from tools.gallery.page import Row, page, write_settings
from tools.gallery.plots import SIZE, draw, sheet
from tools.gallery.settings import LOSSES
from tools.gallery.training import GalleryError, train

DRAWN = (20_000, 2_000)  # digits for training and test, where there is no MNIST
QUICK_DRAWN, QUICK_EPOCHS = (4_000, 1_000), 12.0
TITLE = "Losses in two dimensions"


def main(argv: list[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=home_path, help="folder with the four idx files of MNIST")
    parser.add_argument("--out", type=home_path, default=Path("gallery"), help="folder (gallery)")
    parser.add_argument("--only", nargs="+", metavar="LOSS", help="these losses alone")
    parser.add_argument("--epochs", type=float, help="instead of each loss's own")
    parser.add_argument(
        "--quick", action="store_true", help="fewer digits and epochs, to see that it works"
    )
    parser.add_argument("--seed", type=int, default=1, help="of everything random (1)")
    parser.add_argument("--json", type=home_path, help="write machine and rows here")
    arguments = parser.parse_args(argv)
    try:
        names = choose(arguments.only)
        if arguments.epochs is not None and not 0 < arguments.epochs < 10_000:
            raise ValueError(
                f"--epochs: must be above 0 and below 10000, got {arguments.epochs:g}; 10 is usual"
            )
        if not 0 <= arguments.seed < 2**31:
            raise ValueError(
                f"--seed: must be from 0 to 2147483647, got {arguments.seed}; any of them will do"
            )
        digits, about = load(arguments.mnist, arguments.quick, arguments.seed)
        make(names, digits, about, arguments)
    except GalleryError as error:
        print(f"loss_gallery: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"loss_gallery: {error}", file=sys.stderr)
        return 2
    return 0


def choose(only: list[str] | None) -> list[str]:
    """Return the losses to show, in the order of the table of settings.

    Raises
    ------
    ValueError
        If a name is none of HEADS.
    """
    known = [name for name in LOSSES if name in HEADS]
    for name in only or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"--only: unknown loss {name!r}; {hint}known: {', '.join(known)}")
    return [name for name in known if not only or name in only]


def load(mnist: Path | None, quick: bool, seed: int) -> tuple[Digits, str]:
    """Return the digits and a sentence about them.

    Raises
    ------
    ValueError
        If the files cannot be read.
    """
    if mnist is None:
        train_images, test_images = QUICK_DRAWN if quick else DRAWN
        digits = draw_digits(train_images, test_images, seed)
        source = "digits drawn here in the fonts of OpenCV, not MNIST (give --mnist FOLDER for it)"
    else:
        digits = read_mnist(mnist)
        if quick:
            train_images, test_images = QUICK_DRAWN
            digits = Digits(
                train_images=digits.train_images[:train_images],
                train_labels=digits.train_labels[:train_images],
                test_images=digits.test_images[:test_images],
                test_labels=digits.test_labels[:test_images],
            )
        source = "MNIST"
    return digits, (
        f"{source}: {len(digits.train_labels)} images for training, {len(digits.test_labels)} for "
        "the test"
    )


def make(names: list[str], digits: Digits, about: str, arguments: argparse.Namespace) -> None:
    """Train, draw, and write the plots and the page, which grows with every loss."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    said = ops.use("auto")
    print(about)
    if said:
        print(said)
    rows: list[Row] = []
    plots: list[tuple[str, bytes]] = []
    for number, name in enumerate(names, 1):
        began = time.perf_counter()
        setting = LOSSES[name]
        epochs = arguments.epochs or (QUICK_EPOCHS if arguments.quick else setting.epochs)
        outcome = train(name, setting, digits, epochs, arguments.seed)
        halves = [
            (f"train {outcome.train_accuracy:.4f}", outcome.train_embeddings, outcome.train_labels),
            (f"test {outcome.test_accuracy:.4f}", outcome.test_embeddings, outcome.test_labels),
        ]
        settings = write_settings(name, setting.head)
        plot = draw(name, settings, halves, circle=setting.circle, seed=arguments.seed)
        write_whole(arguments.out / f"{name}.png", plot)
        plots.append((name, plot))
        row = Row(
            name=name,
            image=f"{name}.png",
            settings=settings,
            rule=setting.rule,
            train_accuracy=outcome.train_accuracy,
            test_accuracy=outcome.test_accuracy,
            epochs=epochs,
            seconds=time.perf_counter() - began,
            images_per_second=outcome.images_per_second,
        )
        rows.append(row)
        write_whole(arguments.out / "index.html", page(TITLE, about, rows, SIZE).encode())
        print(
            f"{number:2}/{len(names)}  {name:20} test {row.test_accuracy:.4f}  "
            f"train {row.train_accuracy:.4f}  {row.seconds:6.1f} s  "
            f"{row.images_per_second:8,.0f} images/s",
            flush=True,
        )
    write_whole(arguments.out / "sheet.jpg", sheet(plots))
    print(f"{arguments.out / 'index.html'}: {len(rows)} losses")
    if arguments.json:
        machine = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "operators": said,
        }
        found = {"machine": machine, "digits": about, "rows": [asdict(row) for row in rows]}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.json, (json.dumps(found, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    with atomic_write(path) as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

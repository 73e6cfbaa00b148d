# SPDX-License-Identifier: Apache-2.0
"""Train with each loss on images of digits, and plot the two-dimensional embeddings.

python tools/loss_gallery.py [--mnist MNIST] [--out OUT] [--only LOSS ...]

The tool writes OUT/<loss>.png (embeddings of training and test images), OUT/index.html (all plots
and accuracies) and OUT/sheet.jpg (the plots of the test images of all losses, in one image).
MNIST is a folder with the files of MNIST.  Without ``--mnist``, the tool draws its own digits.
docs/gallery.md explains the settings and the plots.
"""

from __future__ import annotations

import argparse
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

# The number of threads and the options of malloc must be set before mxnet is imported.
if __name__ == "__main__":
    share_cores()
    keep_memory()

import ops
from heads import HEADS
from suggestions import listed
from tools.digits import Digits, draw_digits, read_mnist
from tools.gallery.page import Row, format_settings, page
from tools.gallery.plots import SIZE, draw, sheet
from tools.gallery.settings import LOSSES
from tools.gallery.training import GalleryError, train

DRAWN_IMAGES = (20_000, 2_000)
"""Numbers of training images and of test images to draw without ``--mnist``."""
QUICK_IMAGES, QUICK_EPOCHS = (4_000, 1_000), 12.0
"""With ``--quick``: numbers of training images and of test images, and number of epochs."""
TITLE = "Losses in two dimensions"


def main(argv: list[str]) -> int:
    """Run the tool with the arguments of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=home_path, help="folder with the four idx files of MNIST")
    parser.add_argument(
        "--out", type=home_path, default=Path("gallery"), help="output folder (default: gallery)"
    )
    parser.add_argument("--only", nargs="+", metavar="LOSS", help="train with these losses only")
    parser.add_argument(
        "--epochs", type=float, help="number of epochs (default: each loss has its own number)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="use few images and few epochs, to try the tool"
    )
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument(
        "--json", type=home_path, help="JSON file for a description of the machine and the results"
    )
    arguments = parser.parse_args(argv)
    try:
        names = choose(arguments.only)
        if arguments.epochs is not None and not 0 < arguments.epochs < 10_000:
            raise ValueError(
                f"--epochs: must be above 0 and below 10000, got {arguments.epochs:g}; 10 is usual"
            )
        if not 0 <= arguments.seed < 2**31:
            raise ValueError(
                f"--seed: must be from 0 to 2147483647, got {arguments.seed}; 1 is usual"
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
    """Return the names of the losses to train with, in the order of ``LOSSES``.

    Raises
    ------
    ValueError
        If ``only`` holds an unknown name.
    """
    known = [name for name in LOSSES if name in HEADS]
    for name in only or []:
        if name not in known:
            raise ValueError(f"--only: unknown loss {name!r}; {listed(name, known)}")
    return [name for name in known if not only or name in only]


def load(mnist: Path | None, quick: bool, seed: int) -> tuple[Digits, str]:
    """Read or draw the images of digits; return them with a text on their source and number.

    Raises
    ------
    ValueError
        If the files of MNIST are missing or damaged.
    """
    if mnist is None:
        train_images, test_images = QUICK_IMAGES if quick else DRAWN_IMAGES
        digits = draw_digits(train_images, test_images, seed)
        source = "digits drawn in the fonts of OpenCV, not MNIST (use --mnist FOLDER for MNIST)"
    else:
        digits = read_mnist(mnist)
        if quick:
            train_images, test_images = QUICK_IMAGES
            digits = Digits(
                train_images=digits.train_images[:train_images],
                train_labels=digits.train_labels[:train_images],
                test_images=digits.test_images[:test_images],
                test_labels=digits.test_labels[:test_images],
            )
        source = "MNIST"
    return digits, (
        f"{source}: {len(digits.train_labels)} training images, {len(digits.test_labels)} test "
        "images"
    )


def make(names: list[str], digits: Digits, about: str, arguments: argparse.Namespace) -> None:
    """Train once with each loss; after each training, write the loss's plot and index.html."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    operators = ops.use("auto")
    print(about)
    if operators:
        print(operators)
    rows: list[Row] = []
    plots: list[tuple[str, bytes]] = []
    for number, name in enumerate(names, 1):
        start = time.perf_counter()
        setting = LOSSES[name]
        epochs = arguments.epochs or (QUICK_EPOCHS if arguments.quick else setting.epochs)
        outcome = train(name, setting, digits, epochs, arguments.seed)
        halves = [
            (f"train {outcome.train_accuracy:.4f}", outcome.train_embeddings, outcome.train_labels),
            (f"test {outcome.test_accuracy:.4f}", outcome.test_embeddings, outcome.test_labels),
        ]
        settings = format_settings(name, setting.head)
        plot = draw(name, settings, halves, circle=setting.circle, seed=arguments.seed)
        write_file(arguments.out / f"{name}.png", plot)
        plots.append((name, plot))
        row = Row(
            name=name,
            image=f"{name}.png",
            settings=settings,
            rule=setting.rule,
            train_accuracy=outcome.train_accuracy,
            test_accuracy=outcome.test_accuracy,
            epochs=epochs,
            seconds=time.perf_counter() - start,
            images_per_second=outcome.images_per_second,
        )
        rows.append(row)
        write_file(arguments.out / "index.html", page(TITLE, about, rows, SIZE).encode())
        print(
            f"{number:2}/{len(names)}  {name:20} test {row.test_accuracy:.4f}  "
            f"train {row.train_accuracy:.4f}  {row.seconds:6.1f} s  "
            f"{row.images_per_second:8,.0f} images/s",
            flush=True,
        )
    write_file(arguments.out / "sheet.jpg", sheet(plots))
    print(f"{arguments.out / 'index.html'}: {len(rows)} losses")
    if arguments.json:
        machine = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "operators": operators,
        }
        found = {"machine": machine, "digits": about, "rows": [asdict(row) for row in rows]}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_file(arguments.json, (json.dumps(found, indent=1) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see either the old content or the complete new content."""
    with atomic_write(path) as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

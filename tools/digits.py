# SPDX-License-Identifier: Apache-2.0
"""Read images of digits from the files of MNIST, or draw digits in the fonts of OpenCV."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 28
"""Height and width of an image in pixels."""
CANVAS_SIDE = 4 * SIDE
"""Side in pixels of the canvas that a digit is drawn on, before rotation and downscaling."""
GLYPH_HEIGHT = 18
"""Height in pixels of a digit in the final image, before random scaling; similar to MNIST."""
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SIMPLEX | cv2.FONT_ITALIC,
)


class Digits(NamedTuple):
    """Training and test images of digits.

    The images are uint8 arrays of shape (N, 28, 28), white on black.  The labels are int32 arrays
    of shape (N,) with the digit on each image.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_mnist(folder: Path) -> Digits:
    """Read images and labels from the four idx files of MNIST, plain or compressed with gzip.

    Raises
    ------
    ValueError
        If a file is missing or damaged, or if it does not hold what a file of MNIST holds.
    """
    if not folder.is_dir():
        raise ValueError(
            f"--mnist: must be a folder with the files of MNIST, got {str(folder)!r}; omit "
            "--mnist to use digits drawn by this tool"
        )
    halves = []
    for half in ("train", "t10k"):
        images, images_path = _read_idx(folder, f"{half}-images-idx3-ubyte", 3)
        labels, labels_path = _read_idx(folder, f"{half}-labels-idx1-ubyte", 1)
        if images.shape[1:] != (SIDE, SIDE):
            raise ValueError(
                f"{images_path}: must hold images of {SIDE}x{SIDE} pixels, got {images.shape[1]}x"
                f"{images.shape[2]}; use the files of MNIST"
            )
        if len(labels) != len(images):
            raise ValueError(
                f"{labels_path}: must hold a label for each of {len(images)} images, got "
                f"{len(labels)} labels; take images and labels from the same data set"
            )
        if set(np.unique(labels)) != set(range(10)):
            raise ValueError(
                f"{labels_path}: must hold every label from 0 to 9 and no other label, got "
                f"{np.unique(labels).tolist()[:12]}; use the files of MNIST"
            )
        halves += [images, labels.astype(np.int32)]
    return Digits(*halves)


def _read_idx(folder: Path, name: str, dimensions: int) -> tuple[np.ndarray, Path]:
    """Read one idx file, plain or compressed; return a uint8 array and the path of the file."""
    packed, plain = folder / f"{name}.gz", folder / name
    path = packed if packed.is_file() else plain
    try:
        content = path.read_bytes()
        if path == packed:
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: must hold {name}.gz or {name}, got neither file; name the folder "
            "with the four files of MNIST"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: the file cannot be read, got {error}; download the file again"
        ) from None
    # An idx file consists of two zero bytes, the type (8 means uint8), the number of dimensions,
    # the size of each dimension as a big-endian uint32, and the values.
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(
            f"{path}: must begin with the header of an idx file with {dimensions} dimensions, got "
            f"{content[:4].hex() or 'nothing'}; download the file again"
        )
    shape = [int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path}: must hold {start + math.prod(shape)} bytes, got {len(content)}; download "
            "the file again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), path


def draw_digits(train: int, test: int, seed: int) -> Digits:
    """Draw training and test images of the ten digits in the fonts of OpenCV.

    All digits are equally frequent.  Each image is rotated, scaled, slanted and shifted at random,
    and gets random noise.

    Parameters
    ----------
    train, test
        Number of training images, and number of test images.
    seed
        Random seed.
    """
    random = np.random.default_rng(seed)
    halves: list[np.ndarray] = []
    for count in (train, test):
        labels = random.permutation(np.arange(count, dtype=np.int32) % 10)
        halves += [np.stack([_draw(str(n), random) for n in labels]), labels]
    return Digits(*halves)


def _draw(text: str, random: np.random.Generator) -> np.ndarray:
    font, thickness = int(random.choice(FONTS)), int(random.integers(5, 12))
    base_height = cv2.getTextSize(text, font, 1.0, 1)[0][1]
    scale = GLYPH_HEIGHT / SIDE * CANVAS_SIDE / base_height
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.uint8)
    place = ((CANVAS_SIDE - width) // 2, (CANVAS_SIDE + height) // 2)
    cv2.putText(canvas, text, place, font, scale, (255,), thickness, cv2.LINE_AA)
    matrix = cv2.getRotationMatrix2D(
        (CANVAS_SIDE / 2, CANVAS_SIDE / 2), random.uniform(-20, 20), random.uniform(0.75, 1.1)
    )
    slant = random.uniform(-0.25, 0.25)
    # The shift is at most 2.5 pixels of the final image.  The canvas has CANVAS_SIDE / SIDE times
    # as many pixels per side, so the shift on the canvas is larger by this factor.
    shift = random.uniform(-2.5, 2.5, 2) * CANVAS_SIDE / SIDE
    matrix = matrix + np.array([[0, slant, shift[0]], [0, 0, shift[1]]])
    warped = cv2.warpAffine(canvas, matrix, (CANVAS_SIDE, CANVAS_SIDE))
    small = cv2.resize(warped, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    noisy = small * random.uniform(0.7, 1.0) + random.normal(0, 12, small.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)

# SPDX-License-Identifier: Apache-2.0
"""Images of digits: MNIST from its files, or digits drawn here."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 28  # pixels
CANVAS = 4 * SIDE  # drawn large, then turned and made small in one step
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
    """Images (N, 28, 28) uint8, white on black, and labels (N,) int32 of both halves."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_mnist(folder: Path) -> Digits:
    """Read the four idx files of MNIST, as they are or as .gz.

    Raises
    ------
    ValueError
        If a file is missing, damaged or holds something else.
    """
    if not folder.is_dir():
        raise ValueError(
            f"--mnist: must be a folder with the files of MNIST, got {str(folder)!r}; leave "
            "--mnist out for digits that are drawn here"
        )
    halves = []
    for half in ("train", "t10k"):
        images, at = _read_idx(folder, f"{half}-images-idx3-ubyte", 3)
        labels, beside = _read_idx(folder, f"{half}-labels-idx1-ubyte", 1)
        if images.shape[1:] != (SIDE, SIDE):
            raise ValueError(
                f"{at}: must hold images of {SIDE}x{SIDE}, got {images.shape[1]}x"
                f"{images.shape[2]}; give the files of MNIST"
            )
        if len(labels) != len(images):
            raise ValueError(
                f"{beside}: must hold a label for each of {len(images)} images, got {len(labels)};"
                " give files of one set"
            )
        if set(np.unique(labels)) != set(range(10)):
            raise ValueError(
                f"{beside}: must hold the labels 0 to 9 and all of them, got "
                f"{np.unique(labels).tolist()[:12]}; give the files of MNIST"
            )
        halves += [images, labels.astype(np.int32)]
    return Digits(*halves)


def _read_idx(folder: Path, name: str, dimensions: int) -> tuple[np.ndarray, Path]:
    """Return the bytes of one file in their shape, and where it lies."""
    packed, plain = folder / f"{name}.gz", folder / name
    path = packed if packed.is_file() else plain
    try:
        content = path.read_bytes()
        if path == packed:
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: must hold {name}.gz or {name}, got neither; give the folder with the four "
            "files of MNIST"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read, got {error}; fetch the file again") from None
    # Two bytes of 0, the type (8: uint8), the number of dimensions, each as 4 bytes, the values.
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(
            f"{path}: must begin as an idx file of {dimensions} dimensions, got "
            f"{content[:4].hex() or 'nothing'}; fetch the file again"
        )
    shape = [int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path}: must hold {start + math.prod(shape)} bytes, got {len(content)}; fetch the "
            "file again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), path


def draw_digits(train: int, test: int, seed: int) -> Digits:
    """Draw digits in the fonts of OpenCV, shifted, turned, scaled and noisy; equally many of each.

    Parameters
    ----------
    train, test
        Number of images.
    seed
        The same seed draws the same digits.
    """
    random = np.random.default_rng(seed)
    halves: list[np.ndarray] = []
    for count in (train, test):
        labels = random.permutation(np.arange(count, dtype=np.int32) % 10)
        halves += [np.stack([_draw(str(n), random) for n in labels]), labels]
    return Digits(*halves)


def _draw(text: str, random: np.random.Generator) -> np.ndarray:
    font, thickness = int(random.choice(FONTS)), int(random.integers(5, 12))
    # Some 18 pixels high at the end, as the digits of MNIST are.
    size = cv2.getTextSize(text, font, 1.0, 1)[0][1]
    scale = 18 / SIDE * CANVAS / size
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    place = ((CANVAS - width) // 2, (CANVAS + height) // 2)
    cv2.putText(canvas, text, place, font, scale, 255, thickness, cv2.LINE_AA)
    matrix = cv2.getRotationMatrix2D(
        (CANVAS / 2, CANVAS / 2), random.uniform(-20, 20), random.uniform(0.75, 1.1)
    )
    matrix[0, 1] += random.uniform(-0.25, 0.25)  # slanted
    matrix[:, 2] += random.uniform(-2.5, 2.5, 2) * CANVAS / SIDE
    warped = cv2.warpAffine(canvas, matrix, (CANVAS, CANVAS))
    small = cv2.resize(warped, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    noisy = small * random.uniform(0.7, 1.0) + random.normal(0, 12, small.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)

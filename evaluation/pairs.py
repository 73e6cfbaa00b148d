# SPDX-License-Identifier: Apache-2.0
"""Verification sets: read and write InsightFace's .bin files, decode their images."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atomic_write import atomic_write
from encoded_images import decode
from evaluation.plain_pickle import PlainPickleError, describe, load_plain

Image = bytes | np.ndarray
CutOff = Callable[[bytes | np.ndarray], bool]
"""Function that returns whether an encoded image ends before its last pixels.

OpenCV does not report such images.
"""


class PairsError(ValueError):
    """Invalid verification set; the message is one sentence for the user."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of face images; each pair shows one person or two different people.

    Parameters
    ----------
    images
        Images 2 i and 2 i + 1 form pair i.  An image is encoded bytes, encoded bytes as (N,) uint8,
        or RGB pixels as (H, W, 3) uint8.
    issame
        Whether a pair shows one person, (P,) bool.
    path
        File of the set; error messages begin with it.
    """

    images: list[Image]
    issame: np.ndarray
    path: str = "pairs"

    def __len__(self) -> int:
        return len(self.issame)


def write_pairs(
    path: str | os.PathLike[str], images: Sequence[bytes], issame: Sequence[bool]
) -> None:
    """Write a verification set in InsightFace's format: a pickle (protocol 2) of (images, issame).

    The file is replaced atomically.

    Parameters
    ----------
    path
        The .bin file to write; its folder must exist.
    images
        Encoded images (JPEG or PNG), two per pair, pair after pair.
    issame
        One bool per pair.

    Raises
    ------
    PairsError
        If there are not two images per pair, or an image is not encoded bytes.
    """
    path = Path(path)
    if not issame or len(images) != 2 * len(issame):
        raise PairsError(
            f"{path}: a set has two images for every pair and at least one pair, got {len(images)} "
            f"images and {len(issame)} pairs; pass images[2 * i] and images[2 * i + 1] for pair i"
        )
    for index, image in enumerate(images):
        if not isinstance(image, bytes) or not image:
            raise PairsError(
                f"{path}: {place(index)} must be encoded bytes, got {describe(image)}; encode it "
                "as JPEG or PNG first"
            )
    with atomic_write(path) as file:
        pickle.dump((list(images), [bool(same) for same in issame]), file, protocol=2)


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read a verification set (.bin) of any pickle protocol, from Python 2 or 3, as plain data.

    No code of the file runs: see `evaluation.plain_pickle`. Images stay encoded.

    Parameters
    ----------
    path
        The .bin file.

    Raises
    ------
    PairsError
        If the file is missing or truncated, names a function to call, or is not a set of pairs.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PairsError(
            f"{path}: cannot be read as a verification set, got {reason!r}; name a .bin file"
        ) from None
    try:
        content = load_plain(data)
    except PlainPickleError as error:
        raise PairsError(
            f"{path}: {error}; take the set from a source you trust, or write it with write_pairs"
        ) from None
    del data
    try:
        images, issame = _check_structure(content)
    except _StructureError as error:
        raise PairsError(
            f"{path}: {error}; a .bin holds (images, issame), two images per pair: write it with "
            "write_pairs"
        ) from None
    return Pairs(images, issame, path=str(path))


class _StructureError(ValueError):
    """A part of a set has the wrong structure: "<what is wrong>, got <value>"."""


def _check_structure(content: object) -> tuple[list[Image], np.ndarray]:
    """Return the images and ``issame`` (P,) of an unpickled set."""
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise _StructureError(f"is not a pair of lists, got {describe(content)}")
    images, issame = content
    if not isinstance(images, list | tuple):
        raise _StructureError(f"the images are not a list, got {describe(images)}")
    answers = _check_issame(issame)
    if not len(answers) or len(images) != 2 * len(answers):
        raise _StructureError(
            "there must be pairs, and twice as many images, got "
            f"{len(answers)} pairs and {len(images)} images"
        )
    return [_check_encoding(image, index) for index, image in enumerate(images)], answers


def _check_issame(issame: object) -> np.ndarray:
    """Return the answers as (P,) bool."""
    if isinstance(issame, np.ndarray):
        if issame.dtype.kind not in "biu" or issame.size != max(issame.shape, default=0):
            raise _StructureError(
                f"issame is not a row of booleans, or of 0 and 1, got {describe(issame)}"
            )
        issame = list(issame.reshape(-1))
    elif not isinstance(issame, list | tuple):
        raise _StructureError(f"issame is not a list, got {describe(issame)}")
    for index, same in enumerate(issame):
        if not isinstance(same, bool | np.bool_ | int | np.integer) or not 0 <= same <= 1:
            raise _StructureError(
                f"issame of pair {index} is not a boolean, 0 or 1, got {describe(same)}"
            )
    return np.array([bool(same) for same in issame], dtype=bool)


def _check_encoding(image: object, index: int) -> Image:
    """Return an image as encoded bytes, as (N,) uint8 or as (H, W, 3) uint8."""
    if isinstance(image, bytes) and image:
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.size == max(image.shape, default=0):  # an encoded image, as a row or a column
            return image.reshape(-1)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise _StructureError(
        f"{place(index)} is not encoded bytes or a uint8 array, got {describe(image)}"
    )


def place(index: int) -> str:
    """Name an image of a set by its pair: "image 1 of pair 3" for index 7."""
    return f"image {index % 2} of pair {index // 2}"


def decode_image(
    image: Image,
    image_size: tuple[int, int],
    where: str = "image",
    cut_off: CutOff | None = None,
) -> np.ndarray:
    """Decode one image of a set to RGB pixels.

    The EXIF orientation is applied as ``mx.image.imdecode`` applies it.

    Parameters
    ----------
    image
        Encoded bytes, encoded bytes as (N,) uint8, or RGB pixels as (H, W, 3) uint8.
    image_size
        Required (height, width) in pixels; images are never resized.
    where
        Prefix of the error message: the set and the pair.
    cut_off
        Check for truncated images; None skips the check.

    Outputs
    -------
    RGB pixels, (H, W, 3) uint8.

    Raises
    ------
    PairsError
        If the image does not decode, is truncated or has another size.
    """
    if isinstance(image, np.ndarray) and image.ndim == 3:
        pixels = image
    else:
        encoded = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
        if cut_off is not None and cut_off(encoded):
            raise PairsError(
                f"{where}: is cut off, got an end-of-image marker before its last pixels; make the "
                "set again"
            )
        decoded = decode(encoded)
        if decoded is None:
            raise PairsError(
                f"{where}: does not decode as an image, got {describe(image)}; make the set again"
            )
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    require_size((pixels.shape[0], pixels.shape[1]), image_size, where)
    return pixels


def require_size(found: tuple[int, int], image_size: tuple[int, int], where: str) -> None:
    """Raise PairsError if an image does not have the (height, width) of the network."""
    if found != tuple(image_size):
        raise PairsError(
            f"{where}: is not {image_size[0]} high and {image_size[1]} wide, got "
            f"{found[0]} x {found[1]}; align the set to the network's image size"
        )


def find_sets(entries: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Find verification sets in files and folders.

    Parameters
    ----------
    entries
        .bin files, and folders of .bin files.

    Outputs
    -------
    Paths by the stem of the file, in the order of the entries.  Files of a folder are sorted.

    Raises
    ------
    PairsError
        If an entry is missing, a folder holds no .bin file, or two files have the same stem.
    """
    found: dict[str, str] = {}
    for entry in map(Path, entries):
        if entry.is_dir():
            files = sorted(file for file in entry.glob("*.bin") if file.is_file())
            if not files:
                raise PairsError(
                    f"{entry}: holds no .bin file, got {len(list(entry.iterdir()))} other entries; "
                    "name a .bin file or the folder that holds them"
                )
        elif entry.is_file():
            files = [entry]
        else:
            raise PairsError(
                f"{entry}: is neither a file nor a folder, got nothing there; name a .bin file or "
                "a folder of them"
            )
        for file in files:
            if file.stem in found:
                raise PairsError(
                    f"{file}: a set called {file.stem!r} is listed already, got "
                    f"{found[file.stem]}; rename one of them or list it once"
                )
            found[file.stem] = str(file)
    if not found:
        raise PairsError(
            "verification sets: none found, got no entries; name a .bin file or a folder of them"
        )
    return found


def read_sets(entries: Iterable[str | os.PathLike[str]]) -> Mapping[str, Pairs]:
    """Read the verification sets of files and folders; return them by name, see `find_sets`."""
    return {name: read_pairs(path) for name, path in find_sets(entries).items()}

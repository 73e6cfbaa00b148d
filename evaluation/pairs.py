# SPDX-License-Identifier: Apache-2.0
"""Verification sets: read and write InsightFace's .bin files, decode their images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atomic_write import atomic_write
from encoded_images import decode
from evaluation.pickled_pairs import pickled_parts
from image_headers import is_size, stored_size
from plain_pickle import PlainPickleError, describe, load_plain
from regular_file import open_regular

Image = bytes | np.ndarray
MAX_HEADER_BYTES = 1 << 20
"""The size of an encoded image must stand within this number of bytes from the image's start."""
CutOff = Callable[[bytes | np.ndarray], bool]
"""Function that returns True if the data of an encoded image end before its last pixels.

OpenCV decodes such a truncated image without an error.
"""


class PairsError(ValueError):
    """Error for a verification set that cannot be used; the message tells the user what to do."""


@dataclass(frozen=True)
class Pairs:
    """Verification set of P pairs of face images; a pair shows one person or two different people.

    Parameters
    ----------
    images
        List of 2 P images; images 2 i and 2 i + 1 form pair i.  An image is N encoded bytes, as
        ``bytes`` or as uint8 array (N,), or RGB pixels, as uint8 array (H, W, 3).
    issame
        Bool array (P,), True for a pair that shows one person, False for two people.
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
    """Write a verification set to a .bin file in InsightFace's format.

    The file is a pickle (protocol 2) of the tuple (images, issame).  An existing file is replaced
    atomically.

    Parameters
    ----------
    path
        The .bin file to write; its folder must exist.
    images
        Encoded images (JPEG or PNG), two per pair, pair after pair.
    issame
        One bool per pair, True if the pair shows one person.

    Raises
    ------
    PairsError
        If there are not two images per pair, or an image is not encoded bytes.
    """
    path = Path(path)
    if not issame or len(images) != 2 * len(issame):
        raise PairsError(
            f"{path}: a verification set needs at least one pair, and two images for every pair, "
            f"got {len(images)} images and {len(issame)} pairs; pass images[2 * i] and "
            "images[2 * i + 1] for pair i"
        )
    for index, image in enumerate(images):
        if not isinstance(image, bytes) or not image:
            raise PairsError(
                f"{path}: {name_image(index)} must be encoded bytes, got {describe(image)}; encode "
                "the image as JPEG or PNG first"
            )
    with atomic_write(path) as file:
        for part in pickled_parts(images, [bool(same) for same in issame]):
            file.write(part)


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read a verification set from a .bin file, without running any code in the file.

    The file is a pickle of any protocol, written by Python 2 or 3 (see `plain_pickle`).
    The images stay encoded.

    Parameters
    ----------
    path
        The .bin file.

    Raises
    ------
    PairsError
        If the file is missing or truncated, holds more than plain data (such as a call of a
        function), or does not hold a verification set.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PairsError(
            f"{path}: cannot be read as a verification set, got {reason!r}; name a .bin file"
        ) from None
    try:
        content = load_plain(data)
    except PlainPickleError as error:
        raise PairsError(
            f"{path}: the pickle {error}; get the verification set from a source you trust, or "
            "write the file with write_pairs"
        ) from None
    del data
    try:
        images, issame = _check_structure(content)
    except _StructureError as error:
        raise PairsError(
            f"{path}: {error}; a .bin file must hold the tuple (images, issame) with two images "
            "per pair, so write the file with write_pairs"
        ) from None
    return Pairs(images, issame, path=str(path))


class _StructureError(ValueError):
    """Error for a .bin file whose content is not a verification set.

    The message has the form "<what is wrong>, got <value>".
    """


def _check_structure(content: object) -> tuple[list[Image], np.ndarray]:
    """Check the content of a .bin file; return its 2 P images and the array ``issame``, (P,) bool.

    Raises `_StructureError` if the content is not a verification set.
    """
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise _StructureError(f"the content is not a pair of lists, got {describe(content)}")
    images, issame = content
    if not isinstance(images, list | tuple):
        raise _StructureError(f"the images are not a list, got {describe(images)}")
    flags = _check_issame(issame)
    if not len(flags) or len(images) != 2 * len(flags):
        raise _StructureError(
            "a verification set must have at least one pair, and two images per pair, got "
            f"{len(flags)} pairs and {len(images)} images"
        )
    return [_check_encoding(image, index) for index, image in enumerate(images)], flags


def _check_issame(issame: object) -> np.ndarray:
    """Check that ``issame`` is a list or array of P booleans, 0 or 1; return it as bool (P,)."""
    if isinstance(issame, np.ndarray):
        if issame.dtype.kind not in "biu" or issame.size != max(issame.shape, default=0):
            raise _StructureError(
                f"issame is not a list of booleans or of numbers 0 and 1, got {describe(issame)}"
            )
        values = issame.reshape(-1)
        wrong = np.flatnonzero((values < 0) | (values > 1))
        if len(wrong):
            raise _wrong_answer(int(wrong[0]), values[wrong[0]])
        return values.astype(bool)
    if not isinstance(issame, list | tuple):
        raise _StructureError(f"issame is not a list, got {describe(issame)}")
    for index, same in enumerate(issame):
        if not isinstance(same, bool | np.bool_ | int | np.integer) or not 0 <= same <= 1:
            raise _wrong_answer(index, same)
    return np.array([bool(same) for same in issame], dtype=bool)


def _wrong_answer(index: int, same: object) -> _StructureError:
    return _StructureError(
        f"the value of issame for pair {index} is not a boolean, 0 or 1, got {describe(same)}"
    )


def _check_encoding(image: object, index: int) -> Image:
    """Check that an image is encoded bytes or RGB pixels, and return the image.

    An array of N encoded bytes gets the shape (N,).  Pixels have the shape (H, W, 3).
    """
    if isinstance(image, bytes) and image:
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.size == max(image.shape, default=0):  # encoded bytes, as a row or a column
            return image.reshape(-1)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise _StructureError(
        f"{name_image(index)} is neither encoded bytes nor a uint8 array of RGB pixels, got "
        f"{describe(image)}"
    )


def name_image(index: int) -> str:
    """Return the name of an image for messages: "image 1 of pair 3" for index 7 = 2 * 3 + 1."""
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
        N encoded bytes, as ``bytes`` or as uint8 array (N,), or RGB pixels, as uint8 (H, W, 3).
    image_size
        Required (height, width) in pixels; images are never resized.
    where
        Prefix of error messages, which names the set and the image.
    cut_off
        Function that detects truncated images, see `CutOff`; None skips the check.

    Outputs
    -------
    RGB pixels, (H, W, 3) uint8.

    Raises
    ------
    PairsError
        If the image does not decode, is truncated or is not of the size ``image_size``.
    """
    if isinstance(image, np.ndarray) and image.ndim == 3:
        pixels = image
    else:
        encoded = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
        # Check the size first: to decode an image of another size could need gigabytes of memory.
        header = encoded[:MAX_HEADER_BYTES].tobytes()
        size = stored_size(header)
        if size is not None and not is_size(size, image_size):
            require_size(size, image_size, where)
        if cut_off is not None and cut_off(encoded):
            raise PairsError(
                f"{where}: the image is cut off, got an end-of-image marker before its last "
                "pixels; make the verification set again"
            )
        decoded = None if size is None else decode(encoded)
        if decoded is None:
            raise PairsError(
                f"{where}: does not decode as an image, got {describe(image)}; make the "
                "verification set again"
            )
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    require_size((pixels.shape[0], pixels.shape[1]), image_size, where)
    return pixels


def require_size(found: tuple[int, int], image_size: tuple[int, int], where: str) -> None:
    """Raise PairsError if ``found`` is not ``image_size``; both are (height, width) in pixels."""
    if found != tuple(image_size):
        raise PairsError(
            f"{where}: the image is not {image_size[0]} pixels high and {image_size[1]} pixels "
            f"wide, got {found[0]} x {found[1]} pixels; align the verification set to the "
            "network's image size"
        )


def find_sets(entries: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Find the verification sets among files and folders; return their paths by set name.

    Parameters
    ----------
    entries
        .bin files, and folders of .bin files.

    Outputs
    -------
    Dict from set name to path, in the order of the entries.  The name of a set is the stem of its
    file.  The files of a folder are sorted by name.

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
                    f"{entry}: the folder holds no .bin file, got "
                    f"{len(list(entry.iterdir()))} other entries; name a .bin file or a folder of "
                    ".bin files"
                )
        elif entry.is_file():
            files = [entry]
        else:
            raise PairsError(
                f"{entry}: must be a file or a folder, got neither; name a .bin file or a folder "
                "of .bin files"
            )
        for file in files:
            if file.stem in found:
                raise PairsError(
                    f"{file}: the set name {file.stem!r} is in use already, got the same name from "
                    f"{found[file.stem]}; rename one of the two files, or list the file only once"
                )
            found[file.stem] = str(file)
    if not found:
        raise PairsError(
            "verification sets: at least one file or folder is required, got none; name a .bin "
            "file or a folder of .bin files"
        )
    return found


def read_sets(entries: Iterable[str | os.PathLike[str]]) -> Mapping[str, Pairs]:
    """Read all verification sets that `find_sets` finds; return a dict from set name to set."""
    return {name: read_pairs(path) for name, path in find_sets(entries).items()}

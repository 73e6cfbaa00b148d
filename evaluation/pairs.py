# SPDX-License-Identifier: Apache-2.0
"""Verification sets: InsightFace's .bin files, read without running anything that is in them."""

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
"""Whether an encoded image ends before its last pixels, which OpenCV does not report."""


class PairsError(ValueError):
    """A verification set cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of face images with the answer to whether they show one person.

    Parameters
    ----------
    images
        Two per pair, pair after pair: encoded bytes, encoded bytes as (N,) uint8, or RGB pixels
        as (H, W, 3) uint8.
    issame
        Whether a pair shows one person, (P,) bool.
    path
        Where the set came from; error messages begin with it.
    """

    images: list[Image]
    issame: np.ndarray
    path: str = "pairs"

    def __len__(self) -> int:
        return len(self.issame)


def write_pairs(
    path: str | os.PathLike[str], images: Sequence[bytes], issame: Sequence[bool]
) -> None:
    """Write a verification set as InsightFace ships it: a pickle (protocol 2) of (images, issame).

    A reader finds the old file or the new one, never a part.

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
        If the counts do not fit or an image is not encoded bytes.
    """
    path = Path(path)
    if not issame or len(images) != 2 * len(issame):
        raise PairsError(
            f"{path}: a set has two images for every pair and at least one pair, got {len(images)} "
            f"images and {len(issame)} pairs; hand over images[2 * i] and images[2 * i + 1] for "
            "pair i"
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

    Nothing in the file is called or imported: see `evaluation.plain_pickle`. Images stay encoded.

    Parameters
    ----------
    path
        The .bin file.

    Raises
    ------
    PairsError
        If the file is missing, is cut off, asks for anything to be run, or is not a set of pairs.
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
    return Pairs(*_check_structure(content, path), path=str(path))


def _check_structure(
    content: object, path: str | os.PathLike[str]
) -> tuple[list[Image], np.ndarray]:
    """Return images and issame (P,) of an unpickled set, or raise PairsError."""

    def refuse(problem: str, got: str) -> PairsError:
        return PairsError(
            f"{path}: {problem}, got {got}; a .bin holds (images, issame), two images per pair: "
            "write it with write_pairs"
        )

    if not isinstance(content, list | tuple) or len(content) != 2:
        raise refuse("is not a pair of lists", describe(content))
    bins, issame = content
    if not isinstance(bins, list | tuple):
        raise refuse("the images are not a list", describe(bins))
    if isinstance(issame, np.ndarray):
        if issame.dtype.kind not in "biu" or issame.size != max(issame.shape, default=0):
            raise refuse("issame is not a row of booleans, or of 0 and 1", describe(issame))
        issame = list(issame.reshape(-1))
    elif not isinstance(issame, list | tuple):
        raise refuse("issame is not a list", describe(issame))
    for index, same in enumerate(issame):
        if not isinstance(same, bool | np.bool_ | int | np.integer) or not 0 <= same <= 1:
            raise refuse(f"issame of pair {index} is not a boolean, 0 or 1", describe(same))
    answers = np.array([bool(same) for same in issame], dtype=bool)
    if not len(answers) or len(bins) != 2 * len(answers):
        raise refuse(
            "there must be pairs, and twice as many images",
            f"{len(answers)} pairs and {len(bins)} images",
        )
    images: list[Image] = []
    for index, image in enumerate(bins):
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
            if image.size == max(image.shape, default=0):  # encoded, a row or a column
                images.append(image.reshape(-1))
                continue
            if image.ndim == 3 and image.shape[2] == 3:
                images.append(image)
                continue
        elif isinstance(image, bytes) and image:
            images.append(image)
            continue
        raise refuse(f"{place(index)} is not encoded bytes or a uint8 array", describe(image))
    return images, answers


def place(index: int) -> str:
    """Name image `index` of a set by its pair, counted from 0: "image 1 of pair 3" for 7."""
    return f"image {index % 2} of pair {index // 2}"


def decode_image(
    image: Image,
    image_size: tuple[int, int],
    where: str = "image",
    cut_off: CutOff | None = None,
) -> np.ndarray:
    """Decode one image of a set to RGB pixels, upright as ``mx.image.imdecode`` turns it.

    Parameters
    ----------
    image
        Encoded bytes, encoded bytes as (N,) uint8, or RGB pixels as (H, W, 3) uint8.
    image_size
        The (height, width) in pixels that it must have; sets are aligned, never resized.
    where
        Beginning of the error message: the set and the pair.
    cut_off
        Called with an encoded image; None where nothing can say it.

    Outputs
    -------
    RGB pixels, (H, W, 3) uint8.

    Raises
    ------
    PairsError
        If it does not decode, is cut off or has another size.
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
    """Raise PairsError if the (height, width) of an image is not that of the network."""
    if found != tuple(image_size):
        raise PairsError(
            f"{where}: is not {image_size[0]} high and {image_size[1]} wide, got "
            f"{found[0]} x {found[1]}; align the set to the network's image size"
        )


def find_sets(entries: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Find verification sets: an entry is a .bin file, or a folder for every .bin in it.

    Parameters
    ----------
    entries
        Files and folders.

    Outputs
    -------
    Path by name, the name being the file's stem; files in the order of the entries, those of a
    folder sorted.

    Raises
    ------
    PairsError
        If an entry is missing or holds no .bin, or two files have one name.
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
                    f"{file}: a set called {file.stem!r} is there already, got {found[file.stem]}; "
                    "rename one of them or name it once"
                )
            found[file.stem] = str(file)
    if not found:
        raise PairsError(
            "verification sets: none found, got no entries; name a .bin file or a folder of them"
        )
    return found


def read_sets(entries: Iterable[str | os.PathLike[str]]) -> Mapping[str, Pairs]:
    """Read every set that `find_sets` finds, by name."""
    return {name: read_pairs(path) for name, path in find_sets(entries).items()}

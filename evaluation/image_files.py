# SPDX-License-Identifier: Apache-2.0
"""Image files of aligned faces: find them in folders, check their sizes, read their pixels."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cv2
import numpy as np

from encoded_images import decode, decode_upright
from image_headers import decoded_size, is_whole, stored_size

if TYPE_CHECKING:
    from evaluation.pairs import CutOff

Source = TypeVar("Source")
SUFFIXES = tuple(".jpg .jpeg .jpe .jp2 .png .bmp .dib .webp .tif .tiff .ppm .pgm .pbm .pnm".split())
"""Suffixes, in lower case, of the files in a folder that count as images."""
HEADER_BYTES = 1 << 18
MAX_FILE_BYTES = 1 << 28
MAX_IMAGE_PIXELS = 1 << 26
"""Largest number of pixels of an image that is decoded: 2^26, with three bytes each."""
CONTACT_SHEET = "contact_sheet.png"
"""Name of a file that shows many images at once; folders of aligned faces contain one."""
MAX_THREADS = 4
PREFETCHED_IMAGES = 128


FitImage = Callable[[Path, np.ndarray], np.ndarray | str]
"""Function from the path and the pixels of a photograph to the image that a model embeds.

The pixels are upright RGB, uint8 (H, W, 3).  For an unsuitable photograph the function returns a
text of the form "<what is wrong>, got <value>" instead.
"""


class ImageFileError(ValueError):
    """Image files cannot be used; the message is one sentence for the user."""


class ReadImage(NamedTuple):
    """Pixels of an image file, or the reason why there are none."""

    path: Path
    pixels: np.ndarray | None
    """RGB pixels, uint8 (height, width, 3); None if the file is unreadable."""
    reason: str
    """What is wrong with the file; "" if `pixels` is not None."""


def find_images(entries: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the given image files, and the image files in the given folders.

    The files of a folder and of its subfolders are sorted by path.  A file in a folder counts as an
    image if its suffix is one of SUFFIXES, its name does not begin with a dot, and its name is not
    CONTACT_SHEET.  Subfolders whose name begins with a dot are passed over.  Symbolic links are
    followed, but each folder is searched only once, so the search ends even if links form a loop.
    A path that several entries lead to is listed only once.

    Parameters
    ----------
    entries
        Image files, and folders of image files.

    Raises
    ------
    ImageFileError
        If an entry is neither a file nor a folder, or a folder contains no image file.
    """
    found: dict[Path, None] = {}
    for entry in map(Path, entries):
        if entry.is_dir():
            files = sorted(_walk(entry), key=lambda path: path.parts)
            if not files:
                raise ImageFileError(
                    f"{entry}: must contain image files, got none; name a folder with files such "
                    "as .jpg or .png"
                )
        elif entry.is_file():
            files = [entry]
        else:
            raise ImageFileError(
                f"{entry}: must be an image file or a folder of image files, got "
                f"{'a special file' if entry.exists() else 'no such file'}; correct the path"
            )
        found |= dict.fromkeys(files)
    return list(found)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and its subfolders."""
    searched: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        state = os.stat(parent)
        if (state.st_dev, state.st_ino) in searched:
            folders.clear()
            continue
        searched.add((state.st_dev, state.st_ino))
        for name in files:
            if is_image_name(name):
                yield Path(parent, name)


def is_image_name(name: str) -> bool:
    """Return whether a file of this name counts as an image, see `find_images`."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".") and name != CONTACT_SHEET


def _raise(error: OSError) -> None:
    raise ImageFileError(
        f"{error.filename}: the folder cannot be listed, got {error.strerror}; grant read access"
    )


def check_sizes(paths: Sequence[Path], image_size: tuple[int, int]) -> None:
    """Check the sizes that the headers of image files state.

    The check skips files that cannot be read and headers that state no size.

    Parameters
    ----------
    image_size
        Required (height, width) in pixels.

    Raises
    ------
    ImageFileError
        If an image has another size; the message names the first such image and states the number
        of such images.
    """
    wrong = [
        (path, size) for path in paths if (size := _header_size(path)) not in (None, image_size)
    ]
    if wrong:
        path, size = wrong[0]
        raise _wrong_size(path, size, image_size, f" ({len(wrong)} of {len(paths)} images)")


def _header_size(path: Path) -> tuple[int, int] | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return decoded_size(file.read(HEADER_BYTES))
    except OSError:
        return None  # read_image reports this error when it reads the file


def _wrong_size(
    path: Path, size: tuple[int, int] | None, image_size: tuple[int, int], count: str = ""
) -> ImageFileError:
    height, width = size or (0, 0)
    return ImageFileError(
        f"{path}: the model takes aligned faces of {image_size[0]}x{image_size[1]} pixels (height "
        f"x width), got {height}x{width}{count}; pass --align if the images are photographs, or "
        "--resize if they are aligned faces of another size"
    )


def read_images(
    paths: Sequence[Path],
    image_size: tuple[int, int],
    *,
    resize: bool = False,
    cut_off: CutOff | None = None,
    fit: FitImage | None = None,
) -> Iterator[ReadImage]:
    """Read image files in order; threads decode up to PREFETCHED_IMAGES images in advance.

    Parameters
    ----------
    image_size
        (height, width) in pixels of the yielded images.
    resize
        Whether to resize images of other sizes, without regard to their aspect ratio.
    cut_off
        Function that detects truncated images, see `evaluation.pairs.CutOff`; None skips the check.
    fit
        Function that makes the image for the model from a photograph, see `FitImage`; several
        threads call the function at the same time.  None: the files contain aligned faces.

    Raises
    ------
    ImageFileError
        If an image has another size while `resize` is False and `fit` is None.
    """
    yield from map_in_threads(
        lambda path: read_image(path, image_size, resize, cut_off, fit=fit), paths
    )


def map_in_threads(
    read: Callable[[Source], ReadImage], sources: Sequence[Source]
) -> Iterator[ReadImage]:
    """Read images in threads and yield them in order; prefetch at most PREFETCHED_IMAGES.

    Parameters
    ----------
    read
        Function from an element of `sources` to an image.
    """
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[ReadImage]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(read, source))
                if len(waiting) >= PREFETCHED_IMAGES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_image(
    path: Path,
    image_size: tuple[int, int],
    resize: bool = False,
    cut_off: CutOff | None = None,
    *,
    fit: FitImage | None = None,
) -> ReadImage:
    """Read one image file; `read_images` explains the parameters and the error."""
    if fit is not None:
        photograph = read_photograph(path, cut_off)
        if photograph.pixels is None:
            return photograph
        fitted = fit(path, photograph.pixels)
        if isinstance(fitted, str):
            return ReadImage(path, None, fitted)
        return ReadImage(path, fitted, "")
    image = _read(path, decode, cut_off)
    if image.pixels is None:
        return image
    size = (image.pixels.shape[0], image.pixels.shape[1])
    if size == tuple(image_size):
        return image
    if not resize:
        raise _wrong_size(path, size, image_size)
    smaller = size[0] > image_size[0] and size[1] > image_size[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    pixels = cv2.resize(image.pixels, (image_size[1], image_size[0]), interpolation=method)
    return ReadImage(path, pixels, "")


def read_photograph(path: Path, cut_off: CutOff | None = None) -> ReadImage:
    """Read one photograph in its own size, turned upright as its Exif orientation says.

    `read_images` explains ``cut_off``.
    """
    return _read(path, decode_upright, cut_off)


def _read(
    path: Path, decoder: Callable[[np.ndarray], np.ndarray | None], cut_off: CutOff | None
) -> ReadImage:
    try:
        return ReadImage(path, _decode(_read_bytes(path), decoder, cut_off), "")
    except OSError as error:
        return ReadImage(path, None, f"cannot be read, got {error.strerror}")
    except _UnreadableError as error:
        return ReadImage(path, None, str(error))


class _UnreadableError(ValueError):
    """A file cannot be used as an image; the message is "<what is wrong>, got <value>"."""


def _read_bytes(path: Path) -> bytes:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise _UnreadableError("is not a regular file, got a special file")
    if state.st_size > MAX_FILE_BYTES:
        raise _UnreadableError(f"is longer than {MAX_FILE_BYTES} bytes, got {state.st_size}")
    if not state.st_size:
        raise _UnreadableError("is empty, got 0 bytes")
    return path.read_bytes()


def _decode(
    encoded: bytes,
    decoder: Callable[[np.ndarray], np.ndarray | None],
    cut_off: CutOff | None,
) -> np.ndarray:
    """Decode an image to RGB pixels, uint8 (height, width, 3)."""
    size = stored_size(encoded)
    if size is None:
        raise _UnreadableError(f"does not decode as an image, got {len(encoded)} bytes")
    height, width = size
    if height * width > MAX_IMAGE_PIXELS:
        raise _UnreadableError(
            f"has more than {MAX_IMAGE_PIXELS} pixels, got {height}x{width} pixels"
        )
    values = np.frombuffer(encoded, np.uint8)
    if not is_whole(encoded) or (cut_off is not None and cut_off(values)):
        raise _UnreadableError(f"is truncated, got {len(encoded)} bytes")
    pixels = decoder(values)
    if pixels is None:
        raise _UnreadableError(f"does not decode as an image, got {len(encoded)} bytes")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

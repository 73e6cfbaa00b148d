# SPDX-License-Identifier: Apache-2.0
"""Encoded images of a verification set, from image files."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.image_files import MAX_FILE_BYTES
from image_headers import is_whole, stored_size
from launch.config.printable_text import printable
from tools.data.image_fitting import CHANGES, STORED, ImageFormat, UnfitImageError, fit_image

if TYPE_CHECKING:
    from tools.data.decoder_warnings import DecoderWarnings

_PNG = b"\x89PNG\r\n\x1a\n"


class SetImages:
    """Reads image files for a verification set; each file is read once.

    Complete PNGs of the size of the set, and JPEGs that fit as `image_fitting` explains, are kept
    byte for byte.  All other images are encoded as JPEG.

    Parameters
    ----------
    wanted
        Size and encoding of the images.
    resize
        Whether to resize images of other sizes; False: refuse such images.
    warnings
        Redirection of the warnings of image libraries; the caller must have started it.
    """

    def __init__(self, wanted: ImageFormat, resize: bool, warnings: DecoderWarnings):
        self._wanted = wanted
        self._resize = resize
        self._warnings = warnings
        self._images: dict[Path, bytes] = {}
        self.changes: Counter[str] = Counter()
        """Number of image files by what was done to them, see `image_fitting.CHANGES`."""

    def read(self, path: Path) -> bytes:
        """Return the encoded image of a file.

        Raises
        ------
        ValueError
            If the file is no usable image, or has another size and ``resize`` is False.
        """
        if path not in self._images:
            try:
                self._images[path] = self._fit(_read_file(path), path)
            except OSError as error:
                reason = f"cannot be read, got {error.strerror}"
                raise ValueError(f"{printable(path)}: {reason}; replace the file") from None
            except UnfitImageError as error:
                raise ValueError(f"{printable(path)}: {error}; replace the file") from None
        return self._images[path]

    def _fit(self, data: bytes, path: Path) -> bytes:
        wanted = (self._wanted.height, self._wanted.width)
        size = stored_size(data)
        if size is not None and size != wanted and not self._resize:
            raise ValueError(
                f"{printable(path)}: must have {wanted[0]}x{wanted[1]} pixels (height x width), "
                f"got {size[0]}x{size[1]}; align the photographs first, or pass --size or --resize"
            )
        if data.startswith(_PNG) and size == wanted and is_whole(data):
            self.changes[STORED] += 1
            return data
        fitted = fit_image(data, self._wanted, self._warnings)
        self.changes[fitted.change] += 1
        return fitted.jpeg

    def describe(self) -> list[str]:
        """Return one line for each kind of change that was made to images."""
        return [
            f"{self.changes[c]} images {text}" for c, text in CHANGES.items() if self.changes[c]
        ]


def _read_file(path: Path) -> bytes:
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise UnfitImageError("is not a regular file, got a special file")
    if state.st_size > MAX_FILE_BYTES:
        raise UnfitImageError(f"is longer than {MAX_FILE_BYTES} bytes, got {state.st_size}")
    return path.read_bytes()

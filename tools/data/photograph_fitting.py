# SPDX-License-Identifier: Apache-2.0
"""Make the JPEG of a record from a photograph: decode it, align its face, encode it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from alignment.aligner import CENTRE, STATUSES
from tools.data.image_fitting import (
    ALIGNED,
    CENTRED,
    FittedImage,
    ImageFormat,
    UnfitImageError,
    decode_image,
    encode_jpeg,
)

if TYPE_CHECKING:
    import numpy as np

    from alignment.aligner import FaceAligner
    from tools.data.decoder_warnings import DecoderWarnings


class PhotographFitter:
    """Makes the JPEGs that a set stores for photographs.

    Parameters
    ----------
    aligner
        Aligner that makes images of the size of the set.
    wanted
        Format of the images of the set.
    warnings
        Redirection of the warnings of image libraries; the caller must have started it.
    """

    def __init__(self, aligner: FaceAligner, wanted: ImageFormat, warnings: DecoderWarnings):
        self._aligner = aligner
        self._format = wanted
        self._warnings = warnings

    def fit(self, data: bytes, path: str, points: np.ndarray | None) -> FittedImage:
        """Return the JPEG that a set stores for an encoded photograph.

        Parameters
        ----------
        path
            Path of the photograph.  A file of points lists the points under this path.
        points
            Five points of the face, float (5, 2); None: the aligner finds the points.

        Raises
        ------
        UnfitImageError
            If the file is no usable image, or the photograph is rejected.
        """
        pixels = cv2.cvtColor(decode_image(data, self._warnings), cv2.COLOR_BGR2RGB)
        found = self._aligner.align(path, pixels, points)
        if found.pixels is None:
            raise UnfitImageError(f"cannot be aligned, got a photograph {STATUSES[found.status]}")
        aligned = cv2.cvtColor(found.pixels, cv2.COLOR_RGB2BGR)
        jpeg = encode_jpeg(aligned, self._format.quality, self._format.sampling)
        return FittedImage(jpeg, CENTRED if found.status == CENTRE else ALIGNED)

# SPDX-License-Identifier: Apache-2.0
"""Check before an evaluation that verification sets fit the network and the protocol."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluation.pairs import Image, Pairs, PairsError, decode_image, name_image, require_size
from evaluation.verification import FOLDS
from image_headers import decoded_size, is_whole


def check_sets(sets: Mapping[str, Pairs], image_size: tuple[int, int], nfolds: int = FOLDS) -> None:
    """Check the pairs and the images of verification sets.

    The check reads the header of every image (size, truncation) and decodes one image per set.
    12,000 images take a fraction of a second.

    Parameters
    ----------
    sets
        Sets by name.
    image_size
        (height, width) of the network's images in pixels.
    nfolds
        Number of folds of the verification protocol; a set needs at least one pair per fold.

    Raises
    ------
    PairsError
        If a set has too few pairs, if its pairs are all same-person or all different-person pairs,
        or if an image is truncated, does not decode or is not of the size ``image_size``.
    """
    for pairs in sets.values():
        _check_pairs(pairs, nfolds)
        checked: set[int] = set()
        for index, image in enumerate(pairs.images):
            if id(image) not in checked:  # many pairs may share one image object
                _check_image(image, image_size, f"{pairs.path}: {name_image(index)}")
                checked.add(id(image))
        decode_image(pairs.images[0], image_size, f"{pairs.path}: {name_image(0)}")


def _check_pairs(pairs: Pairs, nfolds: int) -> None:
    if len(pairs) < nfolds:
        raise PairsError(
            f"{pairs.path}: verification with {nfolds} folds needs at least {nfolds} pairs, got "
            f"{len(pairs)} pairs; name a larger verification set"
        )
    same = int(pairs.issame.sum())
    if same in (0, len(pairs)):
        kind = "same-person" if same else "different-person"
        raise PairsError(
            f"{pairs.path}: a verification set needs same-person and different-person pairs, got "
            f"only {kind} pairs ({len(pairs)}); name a set with pairs of both kinds"
        )


def _check_image(image: Image, image_size: tuple[int, int], where: str) -> None:
    if isinstance(image, np.ndarray) and image.ndim == 3:
        require_size((image.shape[0], image.shape[1]), image_size, where)
        return
    encoded = image if isinstance(image, bytes) else image.tobytes()
    size = decoded_size(encoded)
    if size is None:
        decode_image(image, image_size, where)
    else:
        require_size(size, image_size, where)
    if not is_whole(encoded):
        raise PairsError(
            f"{where}: the image is cut off, got {len(encoded)} bytes without an end marker; "
            "download or make the verification set again"
        )

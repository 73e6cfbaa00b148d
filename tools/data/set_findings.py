# SPDX-License-Identifier: Apache-2.0
"""Findings in a verification set: damaged images, unusual sizes, contradictions between pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from encoded_images import decode
from evaluation.distinct import find_distinct
from evaluation.image_files import MAX_IMAGE_PIXELS
from evaluation.pairs import Image, Pairs, PairsError, name_image
from evaluation.people import find_people
from image_headers import is_whole, stored_size
from tools.data.protocol_pairs import FOLDS, unbalanced_folds

if TYPE_CHECKING:
    from tools.data.decoder_warnings import DecoderWarnings


class CheckedImages(NamedTuple):
    """Distinct images of a set, after decoding."""

    numbers: np.ndarray
    """For each image of the P pairs, its index among the distinct images, (2 P,) int."""
    sizes: list[tuple[int, int] | None]
    """(height, width) of each distinct image in pixels; None for a damaged one."""
    damage: list[str]
    """What is wrong with each distinct image; "" for an intact one."""


def check_images(
    pairs: Pairs, warnings: DecoderWarnings, progress: Callable[[str, int, int], None]
) -> CheckedImages:
    """Decode all distinct images of a set."""
    first, numbers = find_distinct(pairs.images)
    sizes: list[tuple[int, int] | None] = []
    damage: list[str] = []
    for done, index in enumerate(first, start=1):
        size, problem = _check_image(pairs.images[index], warnings)
        sizes.append(size)
        damage.append(problem)
        progress("checked", done, len(first))
    return CheckedImages(numbers, sizes, damage)


def _check_image(image: Image, warnings: DecoderWarnings) -> tuple[tuple[int, int] | None, str]:
    """Return the size of an image, and what is wrong with the image.

    The size is (height, width) in pixels; None if the image was not decoded.  The text is "" for
    an intact image.
    """
    if isinstance(image, np.ndarray) and image.ndim == 3:
        return (image.shape[0], image.shape[1]), ""
    data = image if isinstance(image, bytes) else image.tobytes()
    size = stored_size(data)
    if size is None:
        return None, f"is no image, got {len(data)} bytes"
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        return None, f"has more than {MAX_IMAGE_PIXELS} pixels, got {size[0]}x{size[1]} pixels"
    if not is_whole(data):
        return None, f"is truncated, got {len(data)} bytes without an end marker"
    warnings.clear()
    pixels = decode(np.frombuffer(data, np.uint8))
    problem = warnings.read_damage()
    if pixels is None:
        return None, f"cannot be decoded, got {problem or 'damaged or unsupported data'}"
    return (pixels.shape[0], pixels.shape[1]), f"is damaged, got {problem}" if problem else ""


def find_findings(pairs: Pairs, images: CheckedImages) -> Iterator[str]:
    """Yield one sentence for each finding in a verification set."""
    yield from _image_findings(images)
    yield from _pair_findings(pairs, images.numbers)
    yield from _set_findings(pairs)


def _image_findings(images: CheckedImages) -> Iterator[str]:
    places: dict[int, int] = {}
    for index, number in enumerate(images.numbers.tolist()):
        places.setdefault(number, index)
    counts = Counter(size for size in images.sizes if size is not None)
    usual = counts.most_common(1)[0][0] if counts else None
    for number, (size, problem) in enumerate(zip(images.sizes, images.damage, strict=True)):
        where = name_image(places[number])
        if problem:
            yield f"{where} {problem}"
        elif size != usual and usual is not None and size is not None:
            yield (
                f"{where} is {size[0]}x{size[1]} pixels, but most images are "
                f"{usual[0]}x{usual[1]} pixels"
            )


def _pair_findings(pairs: Pairs, numbers: np.ndarray) -> Iterator[str]:
    seen: dict[tuple[int, int], int] = {}
    for pair, same in enumerate(pairs.issame.tolist()):
        one, two = sorted(numbers[2 * pair : 2 * pair + 2].tolist())
        if one == two:
            kind = "of one person" if same else "of different people"
            yield f"pair {pair} {kind} has the same image twice"
            continue
        earlier = seen.setdefault((one, two), pair)
        if earlier == pair:
            continue
        if pairs.issame[earlier] == same:
            yield f"pair {pair} repeats pair {earlier}"
        else:
            yield f"pair {pair} contradicts pair {earlier}, which has the same images"


def _set_findings(pairs: Pairs) -> Iterator[str]:
    same = pairs.issame.tolist()
    if len(set(same)) == 1:
        yield (
            f"all {len(same)} pairs are of one kind (one person or two people), so that no "
            "accuracy can be measured"
        )
    elif len(same) < FOLDS:
        yield f"the set has fewer than {FOLDS} pairs, got {len(same)}"
    elif unbalanced_folds(same):
        yield (
            f"{unbalanced_folds(same)} of {FOLDS} consecutive folds lack pairs of one person, or "
            "lack pairs of two people"
        )
    try:
        find_people(pairs)
    except PairsError as error:
        yield str(error)


def decode_tile(image: Image) -> np.ndarray | None:
    """Return the BGR pixels of an image for a contact sheet; None if it cannot be decoded."""
    if isinstance(image, np.ndarray) and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
    size = stored_size(data.tobytes())
    return decode(data) if size and size[0] * size[1] <= MAX_IMAGE_PIXELS else None

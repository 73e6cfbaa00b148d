# SPDX-License-Identifier: Apache-2.0
"""Checks of a net's settings, each with the same form of sentence."""

import math
import numbers

HALVINGS = 4
"""Convolutions of stride 2 between the image and the last feature map, in every net here."""
LEAST_SIDE = 2 ** (HALVINGS - 1) + 1
"""Of an image in pixels. With fewer a convolution of stride 2 meets a single pixel: 8, 4, 2, 1."""
MXNET_ELEMENTS = 2**31
"""Arrays of MXNet have fewer elements than this."""


def check_image_size(name: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) as ints, or say why the net does not take such images.

    Parameters
    ----------
    name
        Of the net, for the sentence.
    image_size
        (height, width) of the images in pixels.

    Raises
    ------
    ValueError
        If a side is shorter than ``LEAST_SIDE`` or the size is no pair of whole numbers.
    """
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else ()
    if len(sides) != 2 or not all(
        isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in sides
    ):
        raise ValueError(
            f"image_size: must be the height and the width in pixels, got {image_size!r}; "
            "(112, 112) is usual"
        )
    if min(sides) < LEAST_SIDE:
        raise ValueError(
            f"net.name: {name!r} takes images of at least {LEAST_SIDE}x{LEAST_SIDE} pixels, since "
            f"it halves them {HALVINGS} times, got {sides[0]}x{sides[1]}; use a set of larger "
            "images"
        )
    return int(sides[0]), int(sides[1])


def feature_size(image_size: tuple[int, int], halvings: int = HALVINGS) -> tuple[int, int]:
    """Return (height, width) of the last feature map of an image.

    A convolution of stride 2 gives ceil(side / 2) places: 3x3 with padding 1 and 1x1 with none.
    """
    height, width = image_size
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def check_features(name: str, image_size: tuple[int, int], features: int, outputs: int) -> None:
    """Say so if a linear map of the feature map would have more weights than MXNet can hold.

    Raises
    ------
    ValueError
        If ``features * outputs`` is ``MXNET_ELEMENTS`` or more.
    """
    if features * outputs >= MXNET_ELEMENTS:
        raise ValueError(
            f"net.name: the last layer of {name!r} would have {features * outputs:,} weights, "
            f"{MXNET_ELEMENTS:,} and more are too many for MXNet, got images of "
            f"{image_size[0]}x{image_size[1]}; use a set of smaller images"
        )


def check_width(value: float) -> float:
    """Return `net.width` as a float, or say why it is not above 0 and at most 8.

    Raises
    ------
    ValueError
        If it is out of range or of the wrong type.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value <= 8:
        raise ValueError(
            f"net.width: must be a number above 0 and at most 8, got {value!r}; "
            "1.0 is the network of the paper"
        )
    return float(value)


def check_embedding_size(value: int, paper: int) -> int:
    """Return `net.embedding_size` as an int, or say why it is not a whole number of at least 1.

    Parameters
    ----------
    value
        What was given.
    paper
        Length of the embedding in the paper, for the end of the sentence.

    Raises
    ------
    ValueError
        If it is out of range or of the wrong type.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"net.embedding_size: must be a whole number of at least 1, got {value!r}; "
            f"{paper} is the network of the paper"
        )
    return int(value)


def check_dropout(value: float) -> float:
    """Return `net.dropout` as a float, or say why it is not from 0 to below 1.

    Raises
    ------
    ValueError
        If it is out of range or of the wrong type.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not math.isfinite(value)
        or not 0 <= value < 1
    ):
        raise ValueError(
            f"net.dropout: must be a number from 0 to below 1, got {value!r}; "
            "0.0 drops nothing, 0.4 is the network of the paper"
        )
    return float(value)

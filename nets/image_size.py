# SPDX-License-Identifier: Apache-2.0
"""Sizes of images that a net takes, and of the feature map that it makes of them."""

import numbers

HALVINGS = 4
"""Convolutions of stride 2 between the image and the last feature map, in every net here."""
LEAST_SIDE = 2 ** (HALVINGS - 1) + 1
"""Shortest side of an image in pixels: from 8 a convolution of stride 2 would meet a single one."""
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

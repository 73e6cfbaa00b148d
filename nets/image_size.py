# SPDX-License-Identifier: Apache-2.0
"""Image sizes that a net supports, and the sizes of its feature maps."""

import numbers

HALVINGS = 4
"""Number of convolutions with stride 2 in each net, before the last feature map."""
MIN_SIDE_PIXELS = 2 ** (HALVINGS - 1) + 1
"""Minimum side of an image in pixels: at 8, the last stride of 2 applies to a single pixel."""
MAX_MXNET_ELEMENTS = 2**31
"""Limit of the number of elements in an MXNet array, which must be below it."""


def check_image_size(name: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as ints after a check that the net supports the size.

    Parameters
    ----------
    name
        Name of the net, for the error.
    image_size
        (height, width) of the images in pixels.

    Raises
    ------
    ValueError
        If a side is shorter than ``MIN_SIDE_PIXELS`` or the size is not a pair of whole numbers.
    """
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else ()
    if len(sides) != 2 or not all(
        isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in sides
    ):
        raise ValueError(
            f"image_size: must be the height and the width in pixels, got {image_size!r}; "
            "(112, 112) is usual"
        )
    if min(sides) < MIN_SIDE_PIXELS:
        raise ValueError(
            f"net.name: {name!r} needs images of at least {MIN_SIDE_PIXELS}x{MIN_SIDE_PIXELS} "
            f"pixels, because it halves them {HALVINGS} times, got {sides[0]}x{sides[1]}; use a "
            "set of larger images"
        )
    return int(sides[0]), int(sides[1])


def feature_size(image_size: tuple[int, int], halvings: int = HALVINGS) -> tuple[int, int]:
    """Return (height, width) of the last feature map of an image.

    A convolution of stride 2 gives ceil(side / 2) pixels: 3x3 with padding 1, 1x1 without padding.
    """
    height, width = image_size
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def check_features(name: str, image_size: tuple[int, int], features: int, outputs: int) -> None:
    """Check that a linear layer on the feature map has no more weights than MXNet supports.

    Raises
    ------
    ValueError
        If ``features * outputs`` is ``MAX_MXNET_ELEMENTS`` or more.
    """
    if features * outputs >= MAX_MXNET_ELEMENTS:
        raise ValueError(
            f"net.name: the last layer of {name!r} would have {features * outputs:,} weights, "
            f"{MAX_MXNET_ELEMENTS:,} and more are too many for MXNet, got images of "
            f"{image_size[0]}x{image_size[1]}; use a set of smaller images"
        )

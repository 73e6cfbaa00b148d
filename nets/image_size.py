# SPDX-License-Identifier: Apache-2.0
"""Check the image size of a network, and compute the sizes of the network's feature maps."""

import numbers

HALVINGS = 4
"""Number of layers with stride 2, before the last feature map, in most of the networks."""
MIN_SIDE_PIXELS = 2 ** (HALVINGS - 1) + 1
"""Minimum height and width of an image in pixels.

With a side of 8 pixels, the input of the last layer with stride 2 would be a single pixel."""
MAX_MXNET_ELEMENTS = 2**31
"""Number of elements that an MXNet array must stay below."""


def check_image_size(
    name: str,
    image_size: tuple[int, int],
    min_side: int = MIN_SIDE_PIXELS,
    *,
    reason: str = f"the network halves the image size {HALVINGS} times",
) -> tuple[int, int]:
    """Check that a network supports an image size, and return (height, width) as ints.

    Parameters
    ----------
    name
        Name of the network, for the error message.
    image_size
        (height, width) of the images in pixels.
    min_side
        Minimum height and width of the images in pixels.
    reason
        Reason for the minimum, for the error message.

    Raises
    ------
    ValueError
        If a side is shorter than ``min_side`` or if the size is not a pair of whole numbers.
    """
    sides = image_sides(image_size)
    if min(sides) < min_side:
        raise ValueError(
            f"net.name: {name!r} needs images of at least {min_side}x{min_side} "
            f"pixels ({reason}), got "
            f"{sides[0]}x{sides[1]} pixels; use a data set with larger images"
        )
    return sides


def image_sides(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as ints; raise ValueError if they are not two whole numbers."""
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else ()
    if len(sides) != 2 or not all(
        isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in sides
    ):
        raise ValueError(
            f"image_size: must be the height and the width in pixels, got {image_size!r}; "
            "the usual size is (112, 112)"
        )
    return int(sides[0]), int(sides[1])


def feature_size(image_size: tuple[int, int], halvings: int = HALVINGS) -> tuple[int, int]:
    """Return the (height, width) of the last feature map for an image of a given size, in pixels.

    ``halvings`` is the number of layers with stride 2. Each layer reduces a side to
    ``ceil(side / 2)`` pixels. This holds for 3x3 kernels with padding 1 and for 1x1 kernels without
    padding.
    """
    height, width = image_size
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def check_features(
    name: str,
    feature_size: tuple[int, int],
    features: int,
    outputs: int,
    *,
    layer: str = "last layer",
    source: str = "a last feature map",
) -> None:
    """Check that MXNet supports the number of weights of a linear layer.

    Parameters
    ----------
    name
        Name of the network, for the error message.
    feature_size
        (height, width) in pixels of the last feature map, or of what ``source`` names, for the
        error message.
    features
        Number of inputs of the layer.
    outputs
        Number of outputs of the layer.
    layer, source
        The layer, and what ``feature_size`` is the size of, for the error message.

    Raises
    ------
    ValueError
        If ``features * outputs`` is ``MAX_MXNET_ELEMENTS`` or more.
    """
    if features * outputs >= MAX_MXNET_ELEMENTS:
        raise ValueError(
            f"net.name: the {layer} of {name!r} would have {features * outputs:,} weights, but "
            f"an MXNet array must have fewer than {MAX_MXNET_ELEMENTS:,} elements, got {source} "
            f"of {feature_size[0]}x{feature_size[1]} pixels; use a data set with smaller images"
        )

# SPDX-License-Identifier: Apache-2.0
"""Checks of a net's settings, each with the same form of sentence."""

import math
import numbers


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

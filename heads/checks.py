# SPDX-License-Identifier: Apache-2.0
"""Checks of a head's arguments, each with the same form of sentence."""

import math
import numbers


def check_number(
    key: str, value: float, low: float, high: float, *, open_low: bool = False, advice: str
) -> float:
    """Return the value as a float, or say why it is not one between the bounds.

    Parameters
    ----------
    key
        Name of the setting as a config has it, such as ``head.m2``.
    value
        What was given.
    low, high
        Bounds, both allowed.
    open_low
        Whether the lower bound itself is refused.
    advice
        What to do, the end of the sentence.

    Raises
    ------
    ValueError
        If the value is not a finite number in the range.
    """
    # Text is not converted: PyYAML reads 5e-4 as text, and so would hide a slip.
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        if low <= value <= high and not (open_low and value == low):
            return float(value)
    at_least = f"above {low:g}" if open_low else f"from {low:g}"
    up_to = f" up to {high:g}" if math.isfinite(high) else ""
    raise ValueError(f"{key}: must be a number {at_least}{up_to}, got {value!r}; {advice}")


def check_count(key: str, value: int, low: int, *, advice: str) -> int:
    """Return the value as an int, or say why it is not a whole number of at least `low`.

    Raises
    ------
    ValueError
        If the value is not a whole number or too small.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= low:
        return int(value)
    raise ValueError(f"{key}: must be a whole number of at least {low}, got {value!r}; {advice}")


def check_flag(key: str, value: bool) -> bool:
    """Return the value, or say that it is neither true nor false.

    Raises
    ------
    ValueError
        If the value is not a bool.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{key}: must be true or false, got {value!r}; write it without quotes")

# SPDX-License-Identifier: Apache-2.0
"""Draw a histogram of the number of images per identity."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, BAR, LEFT, TOP, BOTTOM = 360, 26, 70, 60, 60
"""Height of the highest bar, width of a bar, and left, top and bottom margins, in pixels."""
MAX_BARS = 30
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, BAR_COLOUR, PAPER = (40, 40, 40), (139, 111, 31), 255


def bin_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort ``counts``, which are whole numbers, into at most MAX_BARS bins of equal width.

    Outputs
    -------
    Lower bound of each bin, int64 (B,), and how many of ``counts`` are in each bin, int64 (B,).
    """
    least, most = int(counts.min()), int(counts.max())
    width = -(-(most - least + 1) // MAX_BARS)
    starts = np.arange(least, most + 1, width)
    return starts, np.bincount((counts - least) // width, minlength=len(starts))


def draw_histogram(counts: np.ndarray, title: str) -> bytes:
    """Return the PNG file of a histogram.

    Parameters
    ----------
    counts
        Number of images of each identity, int64 (K,).
    title
        Line above the histogram, in ASCII.
    """
    starts, heights = bin_counts(counts)
    width = LEFT + max(BAR * len(starts) + 20, 10 * len(title))
    image = np.full((TOP + HEIGHT + BOTTOM, width, 3), PAPER, dtype=np.uint8)
    base = TOP + HEIGHT
    step = -(-len(starts) // 10)
    for place, (start, count) in enumerate(zip(starts.tolist(), heights.tolist(), strict=True)):
        left = LEFT + place * BAR
        # A bin with one identity stays visible, even if another bin has thousands of identities.
        top = base - (max(1, round(HEIGHT * count / heights.max())) if count else 0)
        cv2.rectangle(image, (left + 2, top), (left + BAR - 2, base), BAR_COLOUR, -1)
        if place % step == 0:
            _write(image, str(start), (left + 2, base + 18))
    cv2.line(image, (LEFT, base), (LEFT + BAR * len(starts), base), INK, 1)
    _write(image, title, (10, 24), 0.5)
    _write(image, str(heights.max()), (8, TOP + 6))
    _write(image, "0", (8, base))
    _write(image, "images of the identity", (LEFT, base + 42))
    _write(image, "identities", (8, TOP - 14))
    done, png = cv2.imencode(".png", image)
    assert done
    return png.tobytes()


def _write(image: np.ndarray, text: str, place: tuple[int, int], scale: float = 0.4) -> None:
    cv2.putText(image, text, place, FONT, scale, INK, 1, cv2.LINE_AA)

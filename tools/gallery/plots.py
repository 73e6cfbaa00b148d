# SPDX-License-Identifier: Apache-2.0
"""Draw plots of two-dimensional embeddings: one panel for training images, one for test images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

PANEL, TITLE, GAP = 560, 60, 12
"""Side of a panel, height of the title, and distance between the panels, in pixels."""
SIZE = (2 * PANEL + GAP, TITLE + PANEL)
"""Width and height of a plot in pixels."""
MAX_POINTS = 10_000
SUBPIXEL_BITS = 4
"""Number of fractional bits in the coordinates that OpenCV gets."""
INSIDE_QUANTILE = 0.999
"""For each of the four edges of a panel, the fraction of the points on its inner side."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, PAPER, GREY = (40, 40, 40), (255, 255, 255), (205, 205, 205)
CIRCLE_BINS = 720
SHEET_COLUMNS, SMALL, NAME = 6, 196, 20
"""Number of columns in the image that `sheet` returns, side of a panel, and height of its name.

The side and the height are in pixels.
"""
SHEET_JPEG_QUALITY = 75


def draw(
    title: str,
    subtitle: str,
    halves: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    circle: bool,
    seed: int,
) -> bytes:
    """Draw the plot of one loss, and return it as the bytes of a PNG file.

    Parameters
    ----------
    title, subtitle
        Two lines above the panels, in ASCII.
    halves
        The left panel and the right panel, each as a triple: caption, embeddings (N, 2) of N
        images, and labels (N,).
    circle
        Whether to project the points onto the unit circle and to stack coinciding points outwards.
    seed
        Seed of the order in which points are drawn, and of the choice of points if there are more
        than MAX_POINTS.
    """
    chosen = []
    for caption, embeddings, labels in halves:
        order = np.random.default_rng(seed).permutation(len(labels))[:MAX_POINTS]
        points, labels = embeddings[order], labels[order]
        chosen.append((caption, stack_on_circle(points, labels) if circle else points, labels))
    middle, half = _window(np.concatenate([points for _, points, _ in chosen]))
    image = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    cv2.putText(image, title, (10, 26), FONT, 0.8, INK, 2, cv2.LINE_AA)
    cv2.putText(image, subtitle, (10, 50), FONT, 0.45, INK, 1, cv2.LINE_AA)
    for place, (caption, points, labels) in enumerate(chosen):
        left = place * (PANEL + GAP)
        panel = image[TITLE:, left : left + PANEL]
        # Both panels show the same square of the plane, with y upwards.
        pixels = (points - middle) * [1, -1] / half * (PANEL / 2 - 8) + PANEL / 2
        zero = (-middle) * [1, -1] / half * (PANEL / 2 - 8) + PANEL / 2
        panel[:] = _panel(caption, pixels, labels, zero)
    done, png = cv2.imencode(".png", image)
    assert done
    return png.tobytes()


def sheet(plots: Sequence[tuple[str, bytes]]) -> bytes:
    """Combine the right panels of many plots into one image, and return the bytes of a JPEG file.

    Parameters
    ----------
    plots
        A pair for each loss: its name, and its plot as PNG bytes from `draw`.
    """
    columns = min(SHEET_COLUMNS, len(plots))
    rows = -(-len(plots) // columns)
    canvas = np.full((rows * (NAME + SMALL), columns * SMALL, 3), 255, np.uint8)
    for place, (name, png) in enumerate(plots):
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        panel = image[TITLE:, -PANEL:]
        top, left = place // columns * (NAME + SMALL), place % columns * SMALL
        cv2.putText(canvas, name, (left + 4, top + 15), FONT, 0.42, INK, 1, cv2.LINE_AA)
        small = cv2.resize(panel, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
        canvas[top + NAME : top + NAME + SMALL, left : left + SMALL] = small
    done, jpeg = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, SHEET_JPEG_QUALITY])
    assert done
    return jpeg.tobytes()


def colours() -> list[tuple[int, int, int]]:
    """Return a BGR colour for each digit; successive colours differ in hue and in lightness."""
    found = []
    for n in range(10):
        red, green, blue = colorsys.hls_to_rgb(n / 10, 0.42 if n % 2 else 0.6, 0.75)
        found.append((round(255 * blue), round(255 * green), round(255 * red)))
    return found


def stack_on_circle(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Move points (N, 2) to the unit circle; stack points of about the same direction outwards.

    Points of one class are adjacent in a stack, so several classes are visible as layers.
    """
    angle = np.arctan2(points[:, 1], points[:, 0])
    bins = np.floor((angle / (2 * np.pi) + 0.5) * CIRCLE_BINS).astype(int) % CIRCLE_BINS
    order = np.lexsort((labels, bins))
    first = np.searchsorted(bins[order], bins[order])
    height = np.empty(len(points))
    height[order] = np.arange(len(points)) - first
    radius = 1 + 0.5 * height / max(1.0, height.max())
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _window(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre and half the side of a square that contains all points except outliers."""
    low = np.quantile(points, 1 - INSIDE_QUANTILE, axis=0)
    high = np.quantile(points, INSIDE_QUANTILE, axis=0)
    return (low + high) / 2, float(max((high - low).max() / 2 * 1.08, 1e-6))


def _panel(caption: str, pixels: np.ndarray, labels: np.ndarray, zero: np.ndarray) -> np.ndarray:
    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    x, y = (int(v) for v in np.clip(zero, -PANEL, 2 * PANEL))
    cv2.line(panel, (x - 9, y), (x + 9, y), GREY, 1, cv2.LINE_AA)
    cv2.line(panel, (x, y - 9), (x, y + 9), GREY, 1, cv2.LINE_AA)
    palette = colours()
    inside = ((pixels > -PANEL) & (pixels < 2 * PANEL)).all(axis=1)
    places = np.rint(pixels * 2**SUBPIXEL_BITS)
    for (x, y), label in zip(places[inside].astype(int).tolist(), labels[inside], strict=True):
        cv2.circle(
            panel,
            (x, y),
            int(1.4 * 2**SUBPIXEL_BITS),
            palette[label],
            -1,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )
    for label in np.unique(labels):
        _digit(panel, str(label), np.median(pixels[labels == label], axis=0))
    cv2.putText(panel, caption, (10, PANEL - 12), FONT, 0.55, INK, 1, cv2.LINE_AA)
    cv2.rectangle(panel, (0, 0), (PANEL - 1, PANEL - 1), GREY, 1)
    return panel


def _digit(panel: np.ndarray, text: str, middle: np.ndarray) -> None:
    """Draw a digit centred at ``middle``, with an outline that makes it readable on any colour."""
    (width, height), _ = cv2.getTextSize(text, FONT, 0.8, 2)
    place = (round(middle[0] - width / 2), round(middle[1] + height / 2))
    cv2.putText(panel, text, place, FONT, 0.8, PAPER, 6, cv2.LINE_AA)
    cv2.putText(panel, text, place, FONT, 0.8, INK, 2, cv2.LINE_AA)

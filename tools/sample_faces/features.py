# SPDX-License-Identifier: Apache-2.0
"""Draw the features of a face: head, ears, eyes, brows, nose, mouth and marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from tools.sample_faces.canvas import Canvas, ellipse, fill_pixels, mirrored, mix, rotate, smooth

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tools.sample_faces.people import Person
    from tools.sample_faces.shots import Shot

DARK = np.array([30.0, 14.0, 10.0])
PALE = np.array([255.0, 244.0, 232.0])
RED = np.array([176.0, 40.0, 46.0])
SIDES = (1, -1)


def draw_features(canvas: Canvas, person: Person, shot: Shot) -> None:
    """Draw the head and all features of a face, over the hair that is behind the head."""
    t = person.traits
    skin = person.look.skin
    _draw_head(canvas, person)
    for spot in person.freckles:
        canvas.dot(spot[0], spot[1], 0.016, mix(skin, (110, 50, 25), 0.6))
    _draw_folds(canvas, t, skin, shot)
    for side in SIDES:
        _draw_eye(canvas, person, shot, side)
        _draw_brow(canvas, person, shot, side)
    _draw_nose(canvas, t, skin)
    _draw_mouth(canvas, person, shot)
    for x, y, radius in person.moles:
        canvas.dot(x, y, radius, mix(skin, DARK, 0.65))


def head_outline(t: dict[str, float]) -> np.ndarray:
    """Return N points (N, 2) on the closed outline of the head, in face units."""
    half = np.array([
        (0.30, -1.20),
        (t["forehead_width"], -0.98),
        (t["forehead_width"] + 0.06, -0.50),
        (t["cheek_width"], -0.05),
        (t["cheek_width"] - 0.02, 0.32),
        (t["jaw_width"], t["chin_y"] - 0.26),
        (t["chin_width"], t["chin_y"]),
    ])  # fmt: skip
    return smooth(np.concatenate([half, half[::-1] * (-1, 1)]))


def _draw_head(canvas: Canvas, person: Person) -> None:
    t, skin = person.traits, person.look.skin
    for side in SIDES:
        x, size = (t["cheek_width"] + 0.01) * side, t["ear_size"]
        canvas.fill(ellipse(x, 0.08, size * 0.62, size * 1.25), mix(skin, DARK, 0.10), None)
        canvas.fill(ellipse(x, 0.08, size * 0.34, size * 0.85), mix(skin, DARK, 0.32), None)
        if person.earrings:
            lobe = ellipse(x * 1.04, 0.08 + size * 1.3, t["earring"], t["earring"], 14)
            canvas.fill(lobe, person.earrings, None)
    canvas.fill(head_outline(t), skin, None)
    for side in SIDES:
        canvas.soften(ellipse(0.40 * side, 0.30, 0.16, 0.13), person.blush_colour, t["blush"], 0.08)
    chin = t["chin_y"] - 0.13
    canvas.soften(ellipse(0, chin, 0.16, 0.09), PALE, 0.18, 0.06)
    canvas.line([(0, chin - 0.05), (0, chin + 0.06)], mix(skin, DARK, 0.4 * t["chin_cleft"]), 0.02)


def _draw_folds(canvas: Canvas, t: dict[str, float], skin: np.ndarray, shot: Shot) -> None:
    """Draw the folds from the nose to the corners of the mouth, and the bags under the eyes."""
    mouth_y = t["nose_y"] + t["mouth_drop"]
    depth = np.clip(t["cheek_fold"] + 2.0 * shot.smile, 0, 1)
    for side in SIDES:
        fold = [
            (t["nose_width"] + 0.05, t["nose_y"] - 0.05),
            (t["nose_width"] + 0.14, t["nose_y"] + 0.05),
            (t["mouth_width"] + 0.09, mouth_y),
        ]
        canvas.line(mirrored(smooth(fold, False), side), mix(skin, DARK, 0.36 * depth), 0.026)
        bag = ellipse(t["eye_x"], t["eye_y"] + t["eye_height"] + 0.05, t["eye_width"], 0.035)
        canvas.soften(mirrored(bag, side), mix(skin, DARK, 0.6), 0.75 * t["eye_bag"], 0.02)


def _draw_eye(canvas: Canvas, person: Person, shot: Shot, side: int) -> None:
    t, skin = person.traits, person.look.skin
    width, height = t["eye_width"], t["eye_height"] * shot.eye_open
    place = np.array([t["eye_x"], t["eye_y"]])

    def to_face(points: ArrayLike) -> np.ndarray:
        return mirrored(rotate(points, -t["eye_slant"]) + place, side)

    socket = ellipse(0, -0.03, width * 1.35, t["eye_height"] + 0.10)
    if person.eye_shadow:
        canvas.soften(to_face(socket), person.eye_shadow, 0.75, 0.03)
    else:
        canvas.soften(to_face(socket), mix(skin, DARK, 0.55), 0.45, 0.05)
    upper = smooth([(-width, 0), (-0.6 * width, -1.2 * height), (0.5 * width, -1.3 * height),
                    (width, 0)], False)  # fmt: skip
    lower = smooth([(width, 0), (0.5 * width, 0.9 * height), (-0.5 * width, 0.9 * height),
                    (-width, 0)], False)  # fmt: skip
    opening = canvas.project(to_face(np.concatenate([upper, lower])))
    iris_at = mirrored(place, side) + np.array(shot.gaze) * t["iris"]
    # The lids hide a part of the iris, so the eyeball is drawn separately and blended with a mask.
    low = np.clip(opening.min(0).astype(int) - 2, 0, len(canvas.image) - 3)
    high = np.clip(opening.max(0).astype(int) + 3, 3, len(canvas.image))
    region = canvas.image[low[1] : high[1], low[0] : high[0]]
    if region.size:
        eyeball = np.empty_like(region)
        eyeball[:] = (236, 232, 226)
        rings: list[tuple[float, ArrayLike]] = [
            (t["iris"], mix(person.iris_colour, DARK, 0.5)),
            (t["iris"] * 0.82, person.iris_colour),
            (t["iris"] * 0.42, (12, 10, 10)),
        ]
        for radius, colour in rings:
            disc = canvas.project(ellipse(iris_at[0], iris_at[1], radius, radius, 16)) - low
            fill_pixels(eyeball, disc, colour)
        mask = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(
            mask, [np.round((opening - low) * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4
        )
        weight = mask[..., None] * np.float32(1 / 255)
        region[:] = (region * (1 - weight) + eyeball * weight).astype(np.uint8)
    canvas.line(to_face(upper), mix(skin, DARK, 0.92), t["lash"])
    canvas.line(to_face(lower), mix(skin, DARK, 0.45), 0.012)
    fold = upper * (1.05, 1.0) + (0, -0.045)
    canvas.line(to_face(fold), mix(skin, DARK, 0.5 * t["lid_fold"]), 0.02)


def _draw_brow(canvas: Canvas, person: Person, shot: Shot, side: int) -> None:
    t = person.traits
    length, thick, arch = t["brow_length"], t["brow_thickness"], t["brow_arch"]
    y = t["eye_y"] - t["eye_height"] * 0.5 - t["brow_gap"] - shot.brow_raise
    top = [(0, -thick * 0.5), (0.5 * length, -thick - arch), (length, -thick * 0.2)]
    bottom = [(length, thick * 0.2), (0.5 * length, thick * 0.4 - arch), (0, thick * 0.8)]
    brow = rotate(smooth(top + bottom, rounds=2) - (length / 2, 0), -t["brow_slant"])
    brow = brow + (t["brow_inner"] + length / 2, y)
    canvas.fill(mirrored(brow, side), person.brow_colour)


def _draw_nose(canvas: Canvas, t: dict[str, float], skin: np.ndarray) -> None:
    tip, width, bridge = t["nose_y"], t["nose_width"], t["bridge_width"]
    top = t["eye_y"]
    body = smooth([(-bridge, top), (bridge, top), (width, tip), (0, tip + 0.07), (-width, tip)])
    canvas.soften(body, mix(skin, DARK, 0.30), 0.45, 0.03)
    ridge = [(-bridge * 0.6, top), (bridge * 0.6, top), (width * 0.4, tip), (-width * 0.4, tip)]
    canvas.soften(np.array(ridge), mix(skin, PALE, 0.55), 0.6, 0.03)
    for side in SIDES:
        wing = [(width * 0.75, tip - 0.10), (width * 1.08, tip - 0.02), (width * 0.85, tip + 0.045),
                (width * 0.5, tip + 0.03)]  # fmt: skip
        canvas.line(mirrored(smooth(wing, False), side), mix(skin, DARK, 0.5), 0.024, 0.10)
        hole = ellipse(width * 0.42 * side, tip + 0.035, t["nostril"] * 1.2, t["nostril"] * 0.7, 12)
        canvas.fill(hole, mix(skin, DARK, 0.75), 0.14)


def _draw_mouth(canvas: Canvas, person: Person, shot: Shot) -> None:
    t, skin = person.traits, person.look.skin
    y = t["nose_y"] + t["mouth_drop"]
    width = t["mouth_width"] + 0.5 * max(0.0, shot.smile)
    corner, gap = -shot.smile, shot.mouth_open
    lip = mix(skin, person.lip_colour, t["lip_red"])
    upper_edge = [(-width, corner), (-0.35 * width, -t["upper_lip"] - t["cupid"]),
                  (0, -t["upper_lip"] + t["cupid"]),
                  (0.35 * width, -t["upper_lip"] - t["cupid"]), (width, corner)]  # fmt: skip
    lower_edge = [(width, corner), (0.5 * width, gap + t["lower_lip"]),
                  (-0.5 * width, gap + t["lower_lip"]), (-width, corner)]  # fmt: skip
    outline = np.concatenate([smooth(upper_edge, False), smooth(lower_edge, False)])
    canvas.fill(outline + (0, y), lip, 0.03)
    top = smooth([(-width * 0.9, corner), (0, 0.01), (width * 0.9, corner)], False)
    if gap > 0.02:
        floor = smooth([(width * 0.9, corner), (0.4 * width, gap), (-0.4 * width, gap),
                        (-width * 0.9, corner)], False)  # fmt: skip
        canvas.fill(np.concatenate([top, floor]) + (0, y), (70, 20, 22), 0.03)
        if shot.smile > 0.02:
            canvas.line(top[2:-2] + (0, y + 0.025), (232, 226, 214), 0.04, 0.03)
    else:
        canvas.line(top + (0, y), mix(lip, DARK, 0.7), 0.022, 0.03)
    below = ellipse(0, y + gap + t["lower_lip"] + 0.04, width * 0.5, 0.025)
    canvas.soften(below, mix(skin, DARK, 0.6), 0.4, 0.02)
    _draw_moustache(canvas, person, y, width, gap)


def _draw_moustache(canvas: Canvas, person: Person, y: float, width: float, gap: float) -> None:
    t, kind = person.traits, person.moustache
    colour = mix(person.brow_colour, DARK, 0.2)
    if kind in ("thin", "thick"):
        thick = 0.025 if kind == "thin" else 0.075
        edge = y - t["upper_lip"] - 0.02
        shape = [(-width, edge + 0.05), (-0.4 * width, edge - thick), (0.4 * width, edge - thick),
                 (width, edge + 0.05), (0, edge)]  # fmt: skip
        canvas.fill(smooth(shape, rounds=2), colour, 0.02)
    elif kind == "goatee":
        middle = (y + gap + t["lower_lip"] + t["chin_y"]) / 2 + 0.03
        canvas.fill(ellipse(0, middle, 0.13, 0.12, 14), colour, 0.02)
    elif kind == "beard":
        x, low = t["jaw_width"], t["chin_y"]
        half = [(t["cheek_width"], 0.2), (x + 0.03, low - 0.2), (t["chin_width"], low + 0.06)]
        inner = [(0.1, low - 0.12), (x - 0.14, low - 0.3), (t["cheek_width"] - 0.1, 0.2)]
        strap = np.array(half + inner)
        for side in SIDES:
            canvas.fill(mirrored(smooth(strap, rounds=2), side), colour, None)
        canvas.fill(ellipse(0, low - 0.04, t["chin_width"], 0.1, 14), colour, None)

# SPDX-License-Identifier: Apache-2.0
"""Render one image of a person: background, hair, face, occlusion, light and camera."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from tools.sample_faces.canvas import (
    IMAGE_SIZE,
    Canvas,
    ellipse,
    fill_pixels,
    mirrored,
    mix,
    smooth,
)
from tools.sample_faces.features import DARK, SIDES, draw_features
from tools.sample_faces.people import Look, Person, draw_glasses
from tools.sample_faces.shots import Shot, draw_shot


def render_jpeg(seed: int, person_number: int, person: Person, image_number: int) -> bytes:
    """Render one image of a person as JPEG bytes; the same arguments give the same bytes."""
    rng = np.random.default_rng([seed, 3, person_number, image_number])
    shot = draw_shot(rng, person.glasses is not None)
    image = render(person, shot)
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, shot.quality])
    if not done:
        raise RuntimeError(
            "render_jpeg: OpenCV must encode the image as JPEG, got no data; reinstall "
            "opencv-python-headless"
        )
    return jpeg.tobytes()


def render(person: Person, shot: Shot) -> np.ndarray:
    """Render one image of a person.

    Outputs
    -------
    RGB image, (112, 112, 3) uint8.
    """
    clutter = np.random.default_rng(shot.clutter)
    person = dataclasses.replace(person, look=_with_hair(person.look, shot))
    canvas = Canvas(shot)
    _draw_background(canvas, clutter)
    _draw_back_hair(canvas, person)
    draw_features(canvas, person, shot)
    _draw_front_hair(canvas, person, shot, clutter)
    _draw_glasses(canvas, person, shot, clutter)
    _draw_cover(canvas, person, shot, clutter)
    image = cv2.resize(canvas.image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    return _photograph(image, shot, clutter)


def _with_hair(look: Look, shot: Shot) -> Look:
    """Return a person's look, with the hair colour and hair style that the `Shot` sets, if any."""
    hair = look.hair if shot.hair_colour is None else np.array(shot.hair_colour)
    return Look(skin=look.skin, hair=hair, style=shot.hair_style or look.style)


def _draw_background(canvas: Canvas, clutter: np.random.Generator) -> None:
    """Fill the canvas with a coarse coloured texture, then draw the clothes."""
    side = len(canvas.image)
    coarse = clutter.normal(0, clutter.uniform(5, 25), (int(clutter.integers(2, 9)),) * 2 + (3,))
    coarse += clutter.uniform(40, 215) + clutter.normal(0, 20, 3)
    coarse = np.clip(coarse, 0, 255).astype(np.uint8)
    canvas.image[:] = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    clothes = [(-1.6, 2.2), (-1.4, 1.45), (-0.5, 1.2), (0.5, 1.2), (1.4, 1.45), (1.6, 2.2)]
    canvas.fill(smooth(clothes, rounds=2), clutter.uniform(10, 245, 3), None)


def _draw_back_hair(canvas: Canvas, person: Person) -> None:
    look, t = person.look, person.traits
    if look.style == "long":
        width = t["cheek_width"] + 0.16
        back = [(-0.5, -1.35), (0.5, -1.35), (width, -0.7), (width, 1.3), (-width, 1.3),
                (-width, -0.7)]  # fmt: skip
        canvas.fill(smooth(back), mix(look.hair, DARK, 0.2), None)
    elif look.style == "curly":
        for angle in np.linspace(-0.25, np.pi + 0.25, 13):
            x, y = 0.82 * np.cos(angle), -0.45 - 0.80 * np.sin(angle)
            canvas.fill(ellipse(x, y, 0.24, 0.24, 12), look.hair, None)
    neck = [(-0.38, 0.5), (0.38, 0.5), (0.42, 1.5), (-0.42, 1.5)]
    canvas.fill(np.array(neck), mix(look.skin, DARK, 0.28), None)


def _draw_front_hair(
    canvas: Canvas, person: Person, shot: Shot, clutter: np.random.Generator
) -> None:
    """Draw the hair over the forehead, or a cap if the person wears one in this image."""
    look, w = person.look, person.traits["forehead_width"] + 0.10
    fall = shot.fringe
    if shot.cap:
        rim = -0.62 + fall
        cap = [(-w, rim), (-w, -1.1), (-0.4, -1.4), (0.4, -1.4), (w, -1.1), (w, rim),
               (0, rim - 0.12)]  # fmt: skip
        canvas.fill(smooth(cap), clutter.uniform(10, 245, 3), None)
        return
    if look.style == "bald":
        return
    line = {"short": -0.88, "parted": -0.74, "fringe": -0.52, "long": -0.78, "curly": -0.80}
    y = line[look.style] + fall
    dip = {"parted": 0.3, "long": 0.0}.get(look.style, 0.0)
    front = [(-w, -0.25), (-w - 0.02, -1.0), (-0.4, -1.36), (0.4, -1.36), (w + 0.02, -1.0),
             (w, -0.25), (w - 0.12, -0.5), (0.35, y), (dip, y - 0.12), (-0.35, y),
             (-w + 0.12, -0.5)]  # fmt: skip
    canvas.fill(smooth(front), look.hair, None)
    for x in clutter.uniform(-w, w, 7):
        strand = [(x * 0.5, -1.3), (x, -1.0), (x * 1.02, y - 0.08)]
        tone = mix(look.hair, (255, 240, 220), clutter.uniform(0.05, 0.2))
        canvas.line(smooth(strand, False, 2), tone, 0.02, None)


def _draw_glasses(canvas: Canvas, person: Person, shot: Shot, clutter: np.random.Generator) -> None:
    if shot.glasses == "none":
        return
    t = person.traits
    frame = person.glasses or draw_glasses(clutter)
    width, height, thick = frame.width, frame.height, frame.thickness
    centre = max(t["eye_x"], width + 0.04)
    for side in SIDES:
        lens = ellipse(0, 0, width, height, 24)
        if frame.square:
            lens = np.array([(-1, -1), (1, -1), (0.9, 1), (-0.9, 1)]) * (width, height)
        lens = mirrored(lens + (centre, t["eye_y"] + 0.02), side)
        if shot.glasses == "dark":
            canvas.soften(lens, (25, 22, 24), 0.85, 0.0)
        canvas.line(np.concatenate([lens, lens[:1]]), frame.colour, thick, 0.06)
        arm = [(centre + width, t["eye_y"]), (0.86, t["eye_y"] - 0.02)]
        canvas.line(mirrored(np.array(arm), side), frame.colour, thick, 0.0)
    bridge = [(-centre + width, t["eye_y"]), (0, t["eye_y"] - 0.03), (centre - width, t["eye_y"])]
    canvas.line(np.array(bridge), frame.colour, thick, 0.1)


def _draw_cover(canvas: Canvas, person: Person, shot: Shot, clutter: np.random.Generator) -> None:
    """Draw the object that hides a part of the face, if there is one in this image."""
    colour = clutter.uniform(10, 245, 3)
    side = len(canvas.image)
    if shot.cover == "patch":
        size = clutter.uniform(0.15, 0.3, 2) * side
        corner = clutter.uniform(0, side - size)
        box = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * size + corner
        fill_pixels(canvas.image, box, colour)
    elif shot.cover == "bar":
        middle, angle = clutter.uniform(0.1, 0.9, 2) * side, clutter.uniform(0, np.pi)
        along = np.array([np.cos(angle), np.sin(angle)]) * side * 2
        across = np.array([-np.sin(angle), np.cos(angle)]) * side * clutter.uniform(0.03, 0.07)
        box = [middle - along - across, middle + along - across, middle + along + across,
               middle - along + across]  # fmt: skip
        fill_pixels(canvas.image, np.array(box), colour)
    elif shot.cover == "hand":
        x, y = clutter.choice([-1, 1]) * clutter.uniform(0.45, 0.8), clutter.uniform(0.2, 0.9)
        tone = mix(person.look.skin, DARK, 0.12)
        canvas.fill(ellipse(x, y + 0.35, 0.30, 0.32), tone)
        for finger in range(4):
            tip = ellipse(x - 0.24 + 0.16 * finger, y, 0.075, 0.30, 14)
            canvas.fill(tip, mix(tone, DARK, 0.04 * finger))
    elif shot.cover in ("scarf", "mask"):
        top = clutter.uniform(0.75, 0.95) if shot.cover == "scarf" else clutter.uniform(0.25, 0.4)
        bottom = 1.5 if shot.cover == "scarf" else person.traits["chin_y"] + 0.05
        cloth = [(-0.9, top), (0, top - 0.08), (0.9, top), (0.7, bottom), (-0.7, bottom)]
        canvas.fill(smooth(cloth, rounds=2), colour, 0.05)


def _photograph(image: np.ndarray, shot: Shot, clutter: np.random.Generator) -> np.ndarray:
    """Apply light, shadow, white balance, gain, gamma, blur and noise to a uint8 RGB image."""
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    across = (x - shot.centre[0]) / (0.9 * shot.scale)
    down = (y - shot.centre[1]) / (1.3 * shot.scale)
    front = np.sqrt(np.clip(1.0 - across**2 - down**2, 0.05, 1.0))
    towards = across * shot.light_from[0] + down * shot.light_from[1] + front * shot.light_from[2]
    light = shot.ambient + (1.0 - shot.ambient) * np.clip(towards, 0.0, 1.5)
    angle, place, depth = shot.shadow
    edge = (x - 56) * np.cos(angle) + (y - 56) * np.sin(angle) - place
    light = light * (1.0 - depth / (1.0 + np.exp(np.clip(-edge / 3.0, -30, 30))))
    tint = np.array(shot.white, np.float32) * shot.gain
    bright = (image / np.float32(255.0)) * light[..., None] * tint
    bright = np.clip(bright, 0.0, 1.0) ** shot.gamma
    if shot.blur > 0.3:
        bright = cv2.GaussianBlur(bright, (0, 0), shot.blur)
    noise = clutter.standard_normal(bright.shape, np.float32) * np.float32(shot.noise)
    return np.clip(bright * 255.0 + noise, 0, 255).astype(np.uint8)

# SPDX-License-Identifier: Apache-2.0
"""Properties that vary between images of one person: pose, expression, light, occlusion, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.sample_faces.people import HAIR_STYLES, HAIRS


@dataclass(frozen=True)
class Shot:
    """Properties of one image that do not identify the person.

    Half the height of a head is about 1 face unit.

    Parameters
    ----------
    yaw, pitch, roll
        Rotation of the head to the side, up or down, and in the image plane, in radians.
    scale
        Size of the face in pixels per face unit.
    centre
        Position (x, y) of the face in pixels.
    mirrored
        Whether to mirror the face left to right.
    eye_open
        Factor on the height of the eyes.
    gaze
        Shift (x, y) of the irises, in iris radii.
    brow_raise, smile
        Distance by which the brows and the corners of the mouth rise, in face units.
    mouth_open
        Height of the open mouth, in face units.
    light_from
        Unit vector to the light, in camera coordinates.
    ambient
        Fraction of the light that has no direction, 0 to 1.
    shadow
        Three values.  Direction from the light side to the dark side of the shadow's edge, as an
        angle in radians; distance of the edge from the image centre in this direction, in pixels;
        darkness from 0 to 1.
    gain, gamma
        Factor on the brightness, and exponent of the brightness.
    white
        Factors on R, G and B (white balance).
    glasses
        "none", "clear" or "dark".
    cover
        Object that hides a part of the face: "none", "patch", "bar", "hand", "scarf" or "mask".
    cap
        Whether the person wears a cap.
    hair_style, hair_colour
        Hair style and hair colour (RGB) in this image; None keeps the person's own.
    fringe
        Distance by which the hairline or the rim of the cap is lowered, in face units.
    blur, noise
        Standard deviation of the blur in pixels, and of the noise in grey levels.
    quality
        JPEG quality, 0 to 100.
    clutter
        Random seed of the noise, of background, clothes, cap and cover, and of other details.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    centre: tuple[float, float]
    mirrored: bool
    eye_open: float
    gaze: tuple[float, float]
    brow_raise: float
    mouth_open: float
    smile: float
    light_from: tuple[float, float, float]
    ambient: float
    shadow: tuple[float, float, float]
    gain: float
    gamma: float
    white: tuple[float, float, float]
    glasses: str
    cover: str
    cap: bool
    hair_style: str | None
    hair_colour: tuple[int, int, int] | None
    fringe: float
    blur: float
    noise: float
    quality: int
    clutter: int


def draw_shot(rng: np.random.Generator, wears_glasses: bool) -> Shot:
    """Choose the random properties of one image.

    If ``wears_glasses`` is true, most images of the person show glasses, otherwise few.
    """
    normal, uniform, chance = rng.normal, rng.uniform, rng.random
    light = np.array([uniform(-1, 1), uniform(-1.0, 0.5), uniform(0.3, 1.0)])
    light_x, light_y, light_z = light / np.linalg.norm(light)
    covered = chance() < 0.06
    glasses = chance() < (0.85 if wears_glasses else 0.05)
    return Shot(
        yaw=float(np.clip(normal(0, 0.12), -0.28, 0.28)),
        pitch=float(np.clip(normal(0, 0.06), -0.14, 0.14)),
        roll=float(np.clip(normal(0, 0.06), -0.14, 0.14)),
        scale=float(uniform(43, 48)),
        centre=(float(56 + normal(0, 1.5)), float(58 + normal(0, 1.5))),
        mirrored=bool(chance() < 0.5),
        eye_open=float(0.15 if chance() < 0.04 else uniform(0.75, 1.1)),
        gaze=(float(uniform(-0.6, 0.6)), float(uniform(-0.3, 0.3))),
        brow_raise=float(normal(0, 0.02)),
        mouth_open=float(max(0.0, uniform(-0.15, 0.15))),
        smile=float(uniform(-0.03, 0.08)),
        light_from=(float(light_x), float(light_y), float(light_z)),
        ambient=float(uniform(0.6, 0.9)),
        shadow=(
            float(uniform(0, 2 * np.pi)),
            float(uniform(-25, 40)),
            float(uniform(0.2, 0.5)) if chance() < 0.2 else 0.0,
        ),
        gain=float(uniform(0.8, 1.4)),
        gamma=float(np.exp(normal(0, 0.12))),
        white=_white_balance(rng),
        glasses=str(rng.choice(["clear"] * 9 + ["dark"])) if glasses else "none",
        cover=str(rng.choice(["patch", "bar", "hand", "scarf", "mask"])) if covered else "none",
        cap=bool(chance() < 0.08),
        hair_style=str(rng.choice(HAIR_STYLES)) if chance() < 0.85 else None,
        hair_colour=HAIRS[rng.integers(len(HAIRS))] if chance() < 0.85 else None,
        fringe=float(uniform(-0.05, 0.15)),
        blur=float(uniform(0.0, 0.7)),
        noise=float(uniform(1.0, 5.0)),
        quality=int(rng.integers(50, 96)),
        clutter=int(rng.integers(1 << 31)),
    )


def _white_balance(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = np.exp(rng.normal(0, 0.05, 3))
    return float(red), float(green), float(blue)

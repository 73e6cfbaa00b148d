# SPDX-License-Identifier: Apache-2.0
"""Choose random people for the sample faces: the properties that describe a person in each image.

A person has a look (skin, hair colour, hair style) and traits.  Many people share a look, so a look
barely identifies a person.  The traits, such as the shapes of eyes and mouth, identify a person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

HAIR_STYLES = ("bald", "short", "parted", "fringe", "long", "curly")
SKINS = ((240, 202, 174), (224, 178, 146), (202, 152, 116), (174, 124, 92), (148, 102, 76))
HAIRS = ((38, 30, 28), (78, 52, 36), (140, 98, 56), (206, 170, 106))
IRISES = ((52, 30, 20), (150, 96, 30), (60, 130, 70), (70, 140, 200), (130, 130, 140))
LIPS = ((206, 60, 70), (150, 40, 90), (225, 120, 120), (120, 60, 44), (235, 90, 50))
EYE_SHADOWS = (
    None,
    None,
    (40, 90, 190),
    (50, 150, 90),
    (130, 50, 150),
    (200, 110, 40),
    (30, 24, 30),
)
EARRINGS = (
    None,
    None,
    (240, 200, 60),
    (230, 235, 240),
    (30, 140, 160),
    (190, 30, 60),
    (60, 40, 140),
)
# Colours of the brows.  None stands for a darker shade of the person's hair colour.
BROWS = (None, (24, 18, 18), (150, 70, 30), (190, 184, 176))
BLUSHES = ((210, 60, 70), (225, 120, 60), (150, 60, 130))
MOUSTACHES = ("none", "none", "none", "thin", "thick", "goatee", "beard")
GLASSES_FRACTION = 0.25

# Each trait has a range (low, high).  Lengths are in face units (see `canvas`), and angles are in
# radians.  The values of a person come from a beta distribution with most weight near both ends of
# the range, so that two people differ clearly in some traits.
TRAITS = {
    "forehead_width": (0.58, 0.80),
    "cheek_width": (0.68, 0.88),
    "jaw_width": (0.46, 0.80),
    "chin_width": (0.14, 0.42),
    "chin_y": (0.88, 1.14),
    "ear_size": (0.10, 0.26),
    "eye_x": (0.27, 0.45),
    "eye_y": (-0.18, -0.02),
    "eye_width": (0.12, 0.23),
    "eye_height": (0.05, 0.16),
    "eye_slant": (-0.40, 0.40),  # A positive angle lifts the outer corner of the eye.
    "iris": (0.06, 0.115),
    "lid_fold": (0.0, 1.0),
    "eye_bag": (0.0, 1.0),
    "earring": (0.06, 0.12),
    "lash": (0.010, 0.040),
    "brow_gap": (0.13, 0.27),
    "brow_length": (0.16, 0.38),
    "brow_thickness": (0.02, 0.12),
    "brow_slant": (-0.45, 0.45),  # A positive angle lifts the outer end of the brow.
    "brow_arch": (-0.02, 0.11),
    "brow_inner": (0.05, 0.20),
    "nose_y": (0.18, 0.44),
    "nose_width": (0.09, 0.27),
    "bridge_width": (0.03, 0.11),
    "nostril": (0.02, 0.06),
    "mouth_drop": (0.20, 0.36),
    "mouth_width": (0.15, 0.42),
    "upper_lip": (0.02, 0.10),
    "lower_lip": (0.03, 0.14),
    "cupid": (0.0, 0.05),
    "lip_red": (0.35, 1.0),
    "cheek_fold": (0.0, 1.0),
    "chin_cleft": (0.0, 1.0),
    "blush": (0.0, 0.8),
    "freckles": (-60.0, 70.0),  # The number of freckles; a negative number means none.
}


@dataclass(frozen=True)
class Look:
    """Skin colour and hair colour (RGB, 0 .. 255), and hair style."""

    skin: np.ndarray
    hair: np.ndarray
    style: str


@dataclass(frozen=True)
class Glasses:
    """Frame of a pair of glasses.

    ``width`` and ``height`` are half the width and half the height of a lens.  These and the
    thickness of the frame are in face units (half the height of a head is about 1).
    """

    width: float
    height: float
    thickness: float
    colour: np.ndarray
    square: bool


@dataclass(frozen=True)
class Person:
    """One identity: look, traits by name, colours, moles and freckles.

    A row of ``moles`` is (x, y, radius) of a mole, and a row of ``freckles`` is (x, y) of a
    freckle, in face units (half the height of a head is about 1).
    """

    look: Look
    traits: dict[str, float]
    iris_colour: tuple[int, int, int]
    lip_colour: tuple[int, int, int]
    eye_shadow: tuple[int, int, int] | None
    earrings: tuple[int, int, int] | None
    brow_colour: np.ndarray
    blush_colour: tuple[int, int, int]
    moustache: str
    glasses: Glasses | None
    moles: np.ndarray = field(repr=False)
    freckles: np.ndarray = field(repr=False)


def draw_person(seed: int, number: int, look_number: int) -> Person:
    """Choose the properties of a random person; the same arguments give the same person.

    People with the same ``look_number`` have similar colours of skin and hair, and the same hair
    style.
    """
    rng = np.random.default_rng([seed, 1, number])
    traits = {
        name: float(low + (high - low) * rng.beta(0.4, 0.4)) for name, (low, high) in TRAITS.items()
    }
    moles = rng.uniform((-0.55, -0.6, 0.016), (0.55, 0.8, 0.04), (rng.integers(0, 4), 3))
    spots = rng.normal(0, 1, (max(0, int(traits["freckles"])), 2)) * (0.34, 0.12) + (0.0, 0.2)
    look = _draw_look(seed, look_number, rng)
    brow_colour = _pick(rng, BROWS)
    return Person(
        look=look,
        traits=traits,
        iris_colour=_pick(rng, IRISES),
        lip_colour=_pick(rng, LIPS),
        eye_shadow=_pick(rng, EYE_SHADOWS),
        earrings=_pick(rng, EARRINGS),
        brow_colour=look.hair * 0.7 if brow_colour is None else np.array(brow_colour),
        blush_colour=_pick(rng, BLUSHES),
        moustache=_pick(rng, MOUSTACHES),
        glasses=draw_glasses(rng) if rng.random() < GLASSES_FRACTION else None,
        moles=moles,
        freckles=spots,
    )


def _pick(rng: np.random.Generator, choices: tuple) -> Any:
    return choices[rng.integers(len(choices))]


def draw_glasses(rng: np.random.Generator) -> Glasses:
    """Choose a random frame of glasses."""
    return Glasses(
        width=rng.uniform(0.20, 0.27),
        height=rng.uniform(0.12, 0.21),
        thickness=rng.uniform(0.02, 0.05),
        colour=rng.uniform(10, 140, 3),
        square=bool(rng.random() < 0.5),
    )


def _draw_look(seed: int, look_number: int, rng: np.random.Generator) -> Look:
    """Return the look (skin, hair) with a given number, with small variations for one person.

    Apart from the variations, the look depends only on ``seed`` and ``look_number``, so all people
    with this number share the look.  The variations come from ``rng``, the random generator of the
    person.
    """
    shared = np.random.default_rng([seed, 2, look_number])
    skin = np.array(SKINS[look_number % len(SKINS)]) + shared.normal(0, 6, 3)
    hair = np.array(HAIRS[shared.integers(len(HAIRS))]) + shared.normal(0, 6, 3)
    return Look(
        skin=np.clip(skin + rng.normal(0, 3, 3), 20, 250),
        hair=np.clip(hair + rng.normal(0, 4, 3), 5, 250),
        style=HAIR_STYLES[shared.integers(len(HAIR_STYLES))],
    )


def look_distance(one: Look, other: Look) -> float:
    """Return the difference between two looks.

    It is the sum of the RGB distances of skin and hair, plus 100 if the hair styles differ.
    """
    colours = np.linalg.norm(one.skin - other.skin) + np.linalg.norm(one.hair - other.hair)
    return float(colours + 100.0 * (one.style != other.style))

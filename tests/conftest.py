# SPDX-License-Identifier: Apache-2.0
"""Fixtures with small record sets, whose people a small net can distinguish."""

from __future__ import annotations

import os
import shutil
import tempfile

# Every run removes the decoded caches of killed runs from the cache folder. Each test process needs
# its own folder, because another test process may still check its caches.
os.environ["FACE_CACHE_FOLDER"] = tempfile.mkdtemp(prefix="face-tests-", dir="/dev/shm")
# Several processes run the tests. OpenMP threads that spin would slow the others down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import colorsys
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation.pairs import write_pairs
from pipeline.records.writer import write_record_set

TINY_PEOPLE, TINY_IMAGES, TINY_PAIRS = 12, 10, 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that start ranks first; the short tests then keep all processes busy."""
    items.sort(key=lambda item: "tests/parallel/" not in item.nodeid)


def pytest_unconfigure() -> None:
    """Remove the cache folder of this process."""
    shutil.rmtree(os.environ["FACE_CACHE_FOLDER"], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed the global random generators and choose the plain operators.

    So no test depends on the tests before it in the same process.
    """
    random.seed(0)
    np.random.seed(0)
    if "mxnet" in sys.modules:
        sys.modules["mxnet"].random.seed(0)
    if "ops" in sys.modules:
        sys.modules["ops"].use("plain")


def face(person: int, shot: int, size: tuple[int, int] = (112, 112)) -> bytes:
    """Return the JPEG of one shot of a person, who determines its colours and shape.

    The image is smooth, so that all JPEG decoders give nearly the same pixels.
    """
    height, width = size
    who, how = np.random.default_rng(person), np.random.default_rng([person, shot])
    hue = person * 0.618 % 1  # golden ratio: hues of different people differ
    ground, skin = (np.array(colorsys.hsv_to_rgb(h % 1, 0.7, 0.85)) for h in (hue, hue + 0.4))
    image = np.ones((height, width, 3)) * ground * 255
    scale = np.array([width, height])
    place = (who.uniform(0.35, 0.65, 2) + how.uniform(-0.04, 0.04, 2)) * scale
    axes = who.uniform(0.15, 0.35, 2) * scale
    angle = float(who.uniform(0, 180) + how.uniform(-10, 10))
    where = tuple(int(x) for x in place)
    cv2.ellipse(image, where, tuple(int(x) for x in axes), angle, 0, 360, (skin * 255).tolist(), -1)
    light = np.linspace(1.0, 0.7, width)[
        None, :, None
    ]  # light from one side makes mirrored shots differ
    image *= how.uniform(0.85, 1.1) * light
    image = cv2.GaussianBlur(image, (0, 0), sigmaX=4)
    done, jpeg = cv2.imencode(
        ".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    assert done
    return jpeg.tobytes()


def faces(people: int, images: int, size: tuple[int, int] = (112, 112)) -> list[tuple[int, bytes]]:
    """Return (label, JPEG) of ``images`` shots of each person, sorted by person."""
    return [
        (person, face(person, shot, size)) for person in range(people) for shot in range(images)
    ]


@pytest.fixture(scope="session")
def make_face() -> Callable[..., bytes]:
    """Return ``make_face(person, shot, size=(112, 112))``, which returns JPEG bytes."""
    return face


@pytest.fixture(scope="session")
def make_records(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``make_records(people, images, **options)``, which writes a new folder of records.

    ``options`` are those of ``write_record_set``; ``samples`` replaces the (label, JPEG) pairs.
    """

    def make(people: int, images: int, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("records")
        size = options.get("image_size", (112, 112))
        samples = options.pop("samples", None) or faces(people, images, size)
        write_record_set(folder, samples, people, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_records(make_records: Callable[..., Path]) -> Path:
    """Return a folder with train.rec, train.idx, property (12 people, 120 images) and tiny.bin.

    tiny.bin has 40 pairs of shots that are not in the records.  Every other pair shows one person.
    """
    folder = make_records(TINY_PEOPLE, TINY_IMAGES)
    images, issame = [], []
    for pair in range(TINY_PAIRS):
        person, same = pair % TINY_PEOPLE, pair % 2 == 0
        other = person if same else (person + 1 + pair % (TINY_PEOPLE - 1)) % TINY_PEOPLE
        assert (other == person) == same
        images += [face(person, 100 + pair), face(other, 200 + pair)]
        issame.append(same)
    write_pairs(folder / "tiny.bin", images, issame)
    return folder


@pytest.fixture(scope="session")
def make_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``make_driver(*capabilities)``, which compiles a fake NVIDIA driver.

    The driver has one GPU for each compute capability, such as 90.  ``version`` is the CUDA version
    that it supports, such as 11040.
    """

    def make(*capabilities: int, version: int = 12020) -> Path:
        library = tmp_path_factory.mktemp("driver") / "libfakecuda.so"
        given = [
            f"-DCAPABILITIES={''.join(f'{c},' for c in capabilities)}",
            f"-DVERSION={version}",
        ]
        source = Path(__file__).with_name("launch") / "fake_driver.c"
        command = ["g++", "-x", "c", "-shared", "-fPIC", *given, "-o", library, source]
        subprocess.run(command, check=True)
        return library

    return make

"""Folders of images and record sets for the tests of ``tools.data``."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from tests.conftest import face
from tools.data.__main__ import main

SET_FILES = ("train.rec", "train.idx", "property", "identities.json")


def run(*arguments: object) -> int:
    """Run ``python -m tools.data`` in this process; return the exit code."""
    return main([str(argument) for argument in arguments])


def write_people(folder: Path, people: dict[str, int], size: tuple[int, int] = (112, 112)) -> Path:
    """Write JPEGs ``0.jpg``, ``1.jpg``, ... of each person; return the folder."""
    for number, (name, images) in enumerate(people.items()):
        (folder / name).mkdir(parents=True)
        for shot in range(images):
            (folder / name / f"{shot}.jpg").write_bytes(face(number, shot, size))
    return folder


def read_set(folder: Path) -> list[tuple[int, bytes]]:
    """Return (label, JPEG bytes) of a set in the order of its keys."""
    records = open_records(folder, folder.with_name(f"{folder.name}-scan"))
    jpegs = RecordReader(records).read(np.arange(len(records)))
    return [(int(n), j.tobytes()) for n, j in zip(records.labels, jpegs)]


def set_bytes(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a set."""
    return {name: (folder / name).read_bytes() for name in SET_FILES}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    """Add an Exif orientation after the JFIF segment of a JPEG."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return jpeg[:20] + segment + jpeg[20:]


def decode(jpeg: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()

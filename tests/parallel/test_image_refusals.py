# SPDX-License-Identifier: Apache-2.0
"""All ranks refuse unusable images before they create a run folder."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import face
from tests.parallel.ranks import run_several, training, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel

Content = tuple[list[bytes], list[bool]]


def change_size(images: list[bytes], issame: list[bool]) -> Content:
    return [*images[:-1], face(0, 0, (160, 160))], issame


def cut_off_image(images: list[bytes], issame: list[bool]) -> Content:
    return [*images[:40], images[40][: len(images[40]) // 2], *images[41:]], issame


def bad_set(folder: Path, records: Path, change: Callable[..., Content]) -> Path:
    """Return a configuration whose second verification set has an unusable image."""
    good, bad = records / "tiny.bin", folder / "bad.bin"
    bad.write_bytes(pickle.dumps(change(*pickle.loads(good.read_bytes())), protocol=2))
    return write_cfg(folder, records, eval={"sets": [str(good), str(bad)]})


def test_two_ranks_refuse_unusable_images_before_a_run_folder_exists(
    tiny_records: Path, make_records: Callable[..., Path], tmp_path: Path
):
    cases = {
        "other size": (
            r"bad\.bin: image 1 of pair 39: the image is not 112 pixels high and 112 pixels "
        ),
        "cut off": r"bad\.bin: image 0 of pair 20: the image is cut off, got \d+ bytes",
        "too small": r"net\.name: 'mobilefacenet' needs images of at least 9x9 pixels \(.*got 8x8",
        "checkpoint of another size": (
            r"needs images of 64x48 pixels \(height x width\), got records with ima"
        ),
    }
    folders = {name: tmp_path / name.replace(" ", "-") for name in cases}
    for folder in folders.values():
        folder.mkdir()
    rectangular = make_records(4, 4, image_size=(64, 48))
    other = write_cfg(tmp_path / "other", rectangular, train={"max_steps": 1})
    commands = [
        training(other),
        training(bad_set(folders["other size"], tiny_records, change_size)),
        training(bad_set(folders["cut off"], tiny_records, cut_off_image)),
        training(write_cfg(folders["too small"], make_records(4, 4, image_size=(8, 8)))),
        training(
            write_cfg(folders["checkpoint of another size"], tiny_records),
            f"train.pretrained={tmp_path / 'other' / 'runs' / 'tiny-001'}",
        ),
    ]
    first, *refused = run_several(2, tmp_path, [command[1:] for command in commands])
    assert first.code == 0, first.everything
    for (name, sentence), ended in zip(cases.items(), refused, strict=True):
        check_refusal(ended, sentence)
        assert not (folders[name] / "runs").exists()

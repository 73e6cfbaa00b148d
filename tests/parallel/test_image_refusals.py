# SPDX-License-Identifier: Apache-2.0
"""All ranks refuse unusable images before they create a run folder."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import face
from tests.parallel.ranks import run, training, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel

Content = tuple[list[bytes], list[bool]]


def change_size(images: list[bytes], issame: list[bool]) -> Content:
    return [*images[:-1], face(0, 0, (160, 160))], issame


def cut_off_image(images: list[bytes], issame: list[bool]) -> Content:
    return [*images[:40], images[40][: len(images[40]) // 2], *images[41:]], issame


@pytest.mark.parametrize(
    "ranks, change, sentence",
    [
        (2, change_size, "image 1 of pair 39: the image is not 112 pixels high and 112 pixels "),
        (1, cut_off_image, r"image 0 of pair 20: the image is cut off, got \d+ bytes"),
    ],
)
def test_a_verification_set_with_an_unusable_image_is_refused(
    ranks, change, sentence, tiny_records, tmp_path
):
    good = tiny_records / "tiny.bin"
    content = pickle.loads(good.read_bytes())
    (tmp_path / "bad.bin").write_bytes(pickle.dumps(change(*content), protocol=2))
    cfg = write_cfg(tmp_path, tiny_records, eval={"sets": [str(good), str(tmp_path / "bad.bin")]})
    check_refusal(run(ranks, training(cfg)), rf"bad\.bin: {sentence}")
    assert not (tmp_path / "runs").exists()


def test_images_too_small_for_the_net_are_refused(make_records, tmp_path):
    ended = run(1, training(write_cfg(tmp_path, make_records(4, 4, image_size=(8, 8)))))
    sentence = r"net\.name: 'mobilefacenet' needs images of at least 9x9 pixels, .*, got 8x8 "
    check_refusal(ended, sentence)
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_for_another_image_size_is_refused(
    tiny_records: Path, make_records: Callable[..., Path], tmp_path: Path
):
    small = make_records(4, 4, image_size=(64, 48))
    ended = run(1, training(write_cfg(tmp_path / "other", small, train={"max_steps": 1})))
    assert ended.code == 0, ended.everything
    other = tmp_path / "other" / "runs" / "tiny-001"
    ended = run(1, training(write_cfg(tmp_path, tiny_records), f"train.pretrained={other}"))
    check_refusal(ended, r"needs images of 64x48 pixels \(height x width\), got records with ima")
    assert not (tmp_path / "runs").exists()

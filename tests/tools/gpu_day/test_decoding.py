# SPDX-License-Identifier: Apache-2.0
"""Decode modes and fused operators, with the CPU as the device under test."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode.autotune import sample_rows
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from tools.gpu_day import decoding
from tools.gpu_day.damaged_images import KINDS, damage, load_damaged
from tools.gpu_day.decoded_pixels import AUGMENTATIONS, difference, pixels
from tools.gpu_day.fused_operators import TOLERANCE, fused_against_plain
from tools.gpu_day.results import Parts, Skipped, read_parts


@pytest.fixture(scope="module")
def jpegs(tiny_records, tmp_path_factory):
    records = open_records(tiny_records, tmp_path_factory.mktemp("scan"))
    return RecordReader(records).read(sample_rows(records, 8))


def test_decode_modes_agree_for_every_augmentation(jpegs, tmp_path):
    ops.use("native")
    parts = Parts(tmp_path / "parts")
    decoding.compare_modes(parts, jpegs, ["cpu", "native", "mixed"], None)
    same, native, mixed = read_parts(tmp_path / "parts")
    assert set(same.value) == set(native.value) == set(AUGMENTATIONS)
    assert set(same.value.values()) == {"0.0 mean, 0.0 max"}
    assert native.state == "measured"
    # Without a GPU the mode is a failed part, and the comparison continues.
    assert (mixed.what, mixed.state) == ("pixels, mixed", "failed")


def test_different_pixels_are_detected(jpegs, tmp_path, monkeypatch):
    def shifted(given, mode, augmentation, device_id, feed):
        return pixels(given, "cpu", augmentation, None, None) + (device_id or 0) * np.float32(
            3 / 128
        )

    monkeypatch.setattr(decoding, "pixels", shifted)
    parts = Parts(tmp_path / "parts")
    decoding.compare_modes(parts, jpegs, ["cpu"], 1)
    (part,) = read_parts(tmp_path / "parts")
    assert part.state == "failed"
    assert "'cut-out': '3.0 mean, 3.0 max'" in part.value


def test_differences_are_on_the_scale_of_0_to_255():
    a, b = np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 3, 2, 2), np.float32)
    b[0, 0, 0, 0] = 12 / 128
    assert difference(a, b) == (1.0, 12.0)


def test_damage_is_deterministic_and_of_its_kind(make_face):
    jpeg = make_face(1, 1)
    for kind in KINDS:
        broken = damage(jpeg, kind)
        assert broken != jpeg and broken == damage(jpeg, kind)
        changed = sum(a != b for a, b in zip(broken, jpeg))
        if kind.startswith("cut"):
            assert jpeg.startswith(broken)
        elif "flipped" in kind:
            assert 1 <= changed <= int(kind.split()[0])


@pytest.mark.parametrize(
    ("kind", "reaction"),
    [("cut at 50%", "named"), ("1 bytes flipped", "silent"), ("tables of zeros", "named")],
)
def test_the_loader_names_a_cut_image_but_not_a_flipped_byte(kind, reaction, make_face, tmp_path):
    ops.use("native")
    jpegs = [make_face(person, 0) for person in range(4)]
    assert load_damaged(jpegs, kind, "native", mx.cpu(1), tmp_path) == reaction


def test_fused_operators_agree_with_the_plain_ones():
    errors = fused_against_plain(mx.cpu(1))
    assert errors.keys() >= {"loss", "conv.weight", "act.alpha", "norm.gamma", "weight"}
    assert max(errors.values()) < TOLERANCE
    assert (
        sum(error > 0 for error in errors.values()) > 2
    )  # two implementations never agree exactly


def test_unavailable_fused_operators_are_skipped(monkeypatch):
    def use(choice: str, device: str = "cpu", device_id: int = 0) -> str:
        if choice == "native":
            raise ops.OperatorError("run.operators: none here")
        return ""

    monkeypatch.setattr(ops, "use", use)
    with pytest.raises(Skipped, match="none here"):
        fused_against_plain(mx.cpu())

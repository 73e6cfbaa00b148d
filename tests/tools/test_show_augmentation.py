# SPDX-License-Identifier: Apache-2.0
"""Contact sheet of augmented images: each column shows its augmentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 6


def show(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "show_augmentation.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_column_shows_its_augmentation(tiny_records, tmp_path):
    out = tmp_path / "sheet.png"
    done = show(tiny_records, out, "--images", IMAGES)
    assert done.returncode == 0, done.stderr
    sheet = cv2.imread(str(out)).astype(int)
    assert sheet.shape == (16 + IMAGES * 112, 8 * 112, 3)
    plain, mirror, color, jpeg, cut_out, shift, grey, every = np.split(sheet[16:], 8, axis=1)
    rows = [slice(112 * i, 112 * i + 112) for i in range(IMAGES)]
    mirrored = [bool((mirror[r] == plain[r][:, ::-1]).all()) for r in rows]
    assert all(flag or (mirror[r] == plain[r]).all() for flag, r in zip(mirrored, rows))
    assert len(set(mirrored)) == 2
    for r in rows:
        squares = (cut_out[r] == 128).all(axis=2)
        assert 20 * 20 <= squares.sum() <= 40 * 40
        assert (cut_out[r][~squares] == plain[r][~squares]).all()
    assert 1 < np.abs(color - plain).mean() < 40
    assert 1 < np.abs(jpeg - plain).mean() < 40
    assert np.abs(shift - plain).mean() > 1
    # Grey except for rounding.
    assert np.abs(grey - grey.mean(axis=2, keepdims=True)).max() < 2
    assert np.abs(every - plain).mean() > 1


def test_a_missing_output_folder_is_refused_in_one_sentence(tiny_records, tmp_path):
    done = show(tiny_records, tmp_path / "no_folder" / "sheet.png")
    assert done.returncode == 2
    assert done.stderr == (
        "show_augmentation: OUT: must be a .png file in an existing folder, got "
        f"{tmp_path}/no_folder/sheet.png; choose another name\n"
    )

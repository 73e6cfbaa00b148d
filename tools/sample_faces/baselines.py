# SPDX-License-Identifier: Apache-2.0
"""Measure how accurate verification of the sample faces is without a neural network.

    python -m tools.sample_faces.baselines data/sample_faces

The baselines are grey pixels, mean colour and whitened PCA.  A trained network must be far more
accurate than these baselines to prove that training works.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

import cv2
import numpy as np

from evaluation.pairs import PairsError, read_pairs
from launch.config.paths import home_path

FOLDS = 10
# PCA uses images of 28x28 pixels.  The first 200 principal components vary smoothly over the image,
# so more pixels would not change the result.
PCA_SIDE = 28
DIMENSIONS = (32, 64, 100, 150, 200)


def main(argv: list[str] | None = None) -> int:
    """Print the accuracy of each baseline on the sample faces; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Measure the verification accuracy of baselines on the sample faces."
    )
    parser.add_argument(
        "folder", type=home_path, help="output folder of tools/make_sample_faces.py"
    )
    folder = parser.parse_args(argv).folder
    try:
        rows = measure(folder)
    except (OSError, PairsError) as error:
        print(f"baselines: {error}; run `make sample` first", file=sys.stderr)
        return 2
    for name, accuracy in rows.items():
        print(f"{name:<40} {accuracy:.3f}")
    return 0


def measure(folder: Path) -> dict[str, float]:
    """Return the accuracy of each baseline in 10-fold cross-validation, by name."""
    pairs = read_pairs(folder / "sample_val.bin")
    same = np.asarray(pairs.issame)
    faces = np.stack([_decode(jpeg) for jpeg in pairs.images])
    train, labels = read_training_images(folder)
    rows = {
        "cosine of grey pixels": ten_fold_accuracy(_cosines(_grey(faces, 112)), same),
        "distance of mean RGB": ten_fold_accuracy(_mean_rgb_similarity(faces), same),
    }
    known, queries = _grey(train, PCA_SIDE), _grey(faces, PCA_SIDE)
    mean = known.mean(0)
    known, queries = known - mean, queries - mean
    components = _whitened_components(known, max(DIMENSIONS))
    for kind, within in (("whitened PCA", False), ("PCA, whitened within people", True)):
        scores = {}
        for dimensions in DIMENSIONS:
            matrix = components[:, :dimensions]
            if within:
                matrix = matrix @ _within_whitening(known @ matrix, labels)
            scores[dimensions] = ten_fold_accuracy(_cosines(queries @ matrix), same)
        best = max(scores, key=lambda dimensions: scores[dimensions])
        rows[f"{kind}, best of {len(scores)}: {best}"] = scores[best]
    return rows


def ten_fold_accuracy(similarity: np.ndarray, same: np.ndarray) -> float:
    """Return the mean accuracy of ten folds, each with the best threshold for the nine others.

    The folds consist of consecutive pairs and have equal sizes.

    Inputs
    ------
    For P pairs: similarity (P,) float, and same (P,) bool, true for two images of one person.
    """
    fold = np.arange(len(same)) * FOLDS // len(same)
    accuracies = []
    for test in range(FOLDS):
        rest = fold != test
        order = np.argsort(-similarity[rest], kind="stable")
        ranked, truth = similarity[rest][order], same[rest][order]
        # Entry k of `correct`: number of right decisions if the k most similar pairs are declared
        # to be "same".
        correct = np.concatenate([[0], np.cumsum(np.where(truth, 1, -1))]) + (~truth).sum()
        k = int(correct.argmax())
        threshold = ranked[k - 1] if k else np.inf
        accuracies.append(np.mean((similarity[~rest] >= threshold) == same[~rest]))
    return float(np.mean(accuracies))


def read_training_images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the N images of train.rec as uint8 RGB (N, 112, 112, 3), and their labels (N,)."""
    index = [line.split() for line in (folder / "train.idx").read_text().splitlines()]
    data = (folder / "train.rec").read_bytes()
    images, labels = [], []
    for _, offset in index:
        _, lrec, flag, label = struct.unpack_from("<IIIf", data, int(offset))
        start, length = int(offset) + 8, lrec & ((1 << 29) - 1)
        # Flag 0 marks an image record, whose label is a scalar.  Header and identity records have
        # vectors as labels.  The three upper bits of lrec are 0 if the record has only one part.
        if flag == 0 and lrec >> 29 == 0:
            images.append(_decode(data[start + 24 : start + length]))
            labels.append(int(label))
    return np.stack(images), np.array(labels)


def _decode(jpeg: bytes | np.ndarray) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def _grey(faces: np.ndarray, side: int) -> np.ndarray:
    """Convert N images to grey rows (N, side * side), each with mean 0 and standard deviation 1."""
    grey = faces.astype(np.float32).mean(-1)
    if side != grey.shape[1]:
        grey = np.stack([cv2.resize(g, (side, side), interpolation=cv2.INTER_AREA) for g in grey])
    rows = grey.reshape(len(grey), -1)
    return (rows - rows.mean(1, keepdims=True)) / (rows.std(1, keepdims=True) + 1e-6)


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Return the cosines (P,) of P pairs of rows (2P, D): rows 0 and 1, rows 2 and 3, and so on."""
    rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
    return (rows[0::2] * rows[1::2]).sum(1)


def _mean_rgb_similarity(faces: np.ndarray) -> np.ndarray:
    colour = faces.reshape(len(faces), -1, 3).mean(1)
    return -np.linalg.norm(colour[0::2] - colour[1::2], axis=1)


def _whitened_components(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` principal components of N rows (N, D) with mean 0.

    The projection of the rows on each returned component has variance 1.

    Outputs
    -------
    (D, count) float.
    """
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], 1e-6))


def _within_whitening(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the matrix (D, D) that whitens the variation of N points (N, D) within each person."""
    sums = np.zeros((labels.max() + 1, points.shape[1]))
    np.add.at(sums, labels, points)
    inside = points - (sums / np.maximum(np.bincount(labels), 1)[:, None])[labels]
    values, vectors = np.linalg.eigh(inside.T @ inside / len(inside))
    return vectors / np.sqrt(np.maximum(values, 1e-6)) @ vectors.T


if __name__ == "__main__":
    sys.exit(main())

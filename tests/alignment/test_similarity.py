# SPDX-License-Identifier: Apache-2.0
"""Similarity transforms against Umeyama's SVD, and warps against their own points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.similarity import MAX_WARP_SIDE, fit_similarity, map_points, scale_of, warp
from alignment.template import target_points


def umeyama(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity (2, 3) by equations 38 to 43 of Umeyama, 1991, with an SVD."""
    source_mean, target_mean = points.mean(0), targets.mean(0)
    source, target = points - source_mean, targets - target_mean
    covariance = target.T @ source / len(points)
    u, d, vt = np.linalg.svd(covariance)
    signs = np.ones(2)
    if np.linalg.det(covariance) < 0:
        signs[-1] = -1
    rotation = u @ np.diag(signs) @ vt
    scale = (d * signs).sum() / source.var(0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def test_the_similarity_equals_umeyamas_for_any_points():
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 50):
        for _ in range(50):
            points = rng.normal(0, 10 ** rng.uniform(-2, 4), (count, 2)) + rng.normal(0, 1e3, 2)
            targets = rng.normal(0, 40, (count, 2))
            ours, theirs = fit_similarity(points, targets), umeyama(points, targets)
            np.testing.assert_allclose(
                map_points(ours, points), map_points(theirs, points), atol=1e-6
            )


def test_a_mirrored_face_is_rotated_and_never_mirrored():
    targets = target_points(112, 112)
    matrix = fit_similarity(targets * [-1, 1], targets)
    assert np.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix, umeyama(targets * [-1, 1], targets), atol=1e-9)


def test_an_exact_similarity_is_found():
    targets = target_points(112, 112)
    angle, scale = np.deg2rad(33), 0.4
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = np.column_stack([turn, [7.0, -3.0]])
    points = (targets - expected[:, 2]) @ np.linalg.inv(turn).T
    matrix = fit_similarity(points, targets)
    np.testing.assert_allclose(matrix, expected, atol=1e-9)
    assert scale_of(matrix) == pytest.approx(scale)


def test_equal_points_are_an_error():
    with pytest.raises(ValueError, match=r"points: must not all be equal, got \[3\.0, 4\.0\] 5"):
        fit_similarity(np.tile([3.0, 4.0], (5, 1)), target_points(112, 112))


def test_the_points_of_a_photograph_come_out_at_the_template():
    targets = target_points(112, 112)
    rng = np.random.default_rng(1)
    points = targets @ np.array([[1.9, -0.5], [0.5, 1.9]]).T + [60, 40] + rng.normal(0, 3, (5, 2))
    photograph = np.zeros((400, 400, 3), np.uint8)
    for x, y in points:  # a smooth spot, whose centre of mass is exact to a fraction of a pixel
        rows, columns = np.mgrid[:400, :400]
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        photograph = np.maximum(photograph, spot.astype(np.uint8)[..., None])
    matrix = fit_similarity(points, targets)
    aligned = warp(photograph, matrix, (112, 112))[..., 0].astype(float)
    for x, y in map_points(umeyama(points, targets), points):
        left, top = round(x) - 5, round(y) - 5
        part = aligned[top : top + 11, left : left + 11]
        rows, columns = np.mgrid[top : top + 11, left : left + 11]
        found = np.array([(part * columns).sum(), (part * rows).sum()]) / part.sum()
        np.testing.assert_allclose(found, [x, y], atol=0.1)


def test_a_warp_is_black_outside_the_photograph():
    white = np.full((50, 50, 3), 255, np.uint8)
    moved = warp(white, np.array([[1.0, 0, 30], [0, 1.0, 0]]), (50, 60))
    assert moved.shape == (50, 60, 3)
    assert not moved[:, :29].any() and (moved[:, 31:] == 255).all()
    assert np.array_equal(warp(white, np.eye(2, 3), (50, 50)), white)
    assert cv2.countNonZero(moved[..., 0]) > 0


@pytest.mark.parametrize("turn", [0.0, 0.6, 2.0])
def test_a_side_that_opencv_cannot_warp_changes_no_pixel(turn):
    generator = np.random.default_rng(3)
    small = generator.integers(0, 256, (90, 400, 3), dtype=np.uint8)
    wide = np.zeros((90, MAX_WARP_SIDE + 3000, 3), np.uint8)
    left = 30_000
    wide[:, left : left + 400] = small
    cosine, sine = 1.3 * np.cos(turn), 1.3 * np.sin(turn)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([200.0, 45.0])
    matrix = np.column_stack([linear, np.array([24.0, 32.0]) - linear @ centre])
    moved = np.column_stack([linear, matrix[:, 2] - linear @ np.array([left, 0])])
    found, expected = warp(wide, moved, (64, 48)), warp(small, matrix, (64, 48))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.abs(warp(wide.swapaxes(0, 1), moved[:, [1, 0, 2]], (64, 48)) - found).max() == 0


def test_a_part_that_is_too_long_is_shrunk_and_a_part_outside_is_black():
    wide = np.zeros((4, 2 * MAX_WARP_SIDE, 3), np.uint8)
    wide[:, MAX_WARP_SIDE:] = 200
    scale = 100 / wide.shape[1]
    found = warp(wide, np.array([[scale, 0, 0], [0, scale, 4]]), (8, 100))
    assert found[4, :48].max() == 0 and (found[4, 53:98] > 0).all()
    assert not warp(wide, np.array([[1.0, 0, 500], [0, 1, 0]]), (8, 100)).any()

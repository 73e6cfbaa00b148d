# SPDX-License-Identifier: Apache-2.0
"""Embeddings of listed images in batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.commands.image_rows import embed_in_batches
from evaluation.image_files import ImageFileError, ReadImage


def first_pixels(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, 0, :2, 0].astype(np.float32)


def read(index: int) -> ReadImage:
    pixels = np.full((2, 3, 3), 7 - index, np.uint8)
    pixels[:, 2] = 9  # the mirror image of an image of zeros has another first pixel
    return ReadImage(Path(f"{index}.png"), pixels, "")


def test_batches_have_the_embeddings_of_images_and_mirror_images():
    embedder = SimpleNamespace(batch_size=2, raw_embeddings=first_pixels)
    found = dict(embed_in_batches(embedder, read, 3, "faces", mirrored=True))
    assert found[0].tolist() == [[[7, 7], [6, 6]], [[9, 7], [9, 6]]]
    assert found[2].tolist() == [[[5, 5]], [[9, 5]]]


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_image_of_an_unusable_embedding_is_named(mirrored):
    embedder = SimpleNamespace(batch_size=4, raw_embeddings=first_pixels)
    with pytest.raises(ImageFileError) as caught:
        list(embed_in_batches(embedder, read, 8, "faces", mirrored=mirrored))
    assert str(caught.value) == (
        "7.png: the embedding cannot be normalised, got L2 norm 0.0; check the weights of the model"
    )

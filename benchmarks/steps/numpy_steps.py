# SPDX-License-Identifier: Apache-2.0
"""Run the matrix products of a margin softmax alone, in NumPy, as an upper bound of its speed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.harness import inputs
from benchmarks.harness.worker import Work, serve


def build(num_classes: int, embedding_size: int, batch: int) -> Work:
    """Return the `Work` of four matrix products with NumPy's OpenBLAS, into preallocated arrays.

    A head that does not store the matrix of logits needs four products: the cosines, the cosines
    again in the backward pass, the gradient of the embeddings, and the gradient of the class
    centres.
    """
    weight = np.empty((num_classes, embedding_size), np.float32)
    for rows, values in inputs.centres(num_classes, embedding_size):
        weight[rows] = values
    embedding = inputs.embeddings(batch, embedding_size)
    cosine = np.empty((batch, num_classes), np.float32)
    embedding_gradient, weight_gradient = np.empty_like(embedding), np.empty_like(weight)

    def step(mark: Callable[[], None]) -> float:
        np.dot(embedding, weight.T, out=cosine)
        np.dot(embedding, weight.T, out=cosine)
        np.dot(cosine, weight, out=embedding_gradient)
        np.dot(cosine.T, embedding, out=weight_gradient)
        return 0.0

    return Work(step, 2 * weight.nbytes, weight.size, {"numpy": np.__version__})


def warm() -> None:
    """Start the threads of OpenBLAS with a small matrix product."""
    matrix = np.ones((512, 512), np.float32)
    np.dot(matrix, matrix)


if __name__ == "__main__":
    serve(build, warm)

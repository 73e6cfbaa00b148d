# SPDX-License-Identifier: Apache-2.0
"""Base classes of all heads."""

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, init

from heads.cross_entropy import Form, cross_entropy
from heads.statistics import Reduce, alone
from ranges import Setting, Within, at_least, cross_problems, settings


class Head(gluon.HybridBlock):
    """Loss for each image of a batch of embeddings.

    A subclass is built as ``(num_classes, embedding_size, *, ...)``. The keyword-only arguments of
    its constructor are its settings, the keys of ``head.*``; their ``Annotated`` types hold the
    ranges. It passes all other arguments on to its base class. A static method
    ``problems(options)`` may yield (key, sentence) for settings that exclude each other.

    The docstring of a loss has a summary, the formula and the paper as its first three paragraphs;
    `tools.losses_table` prints the last two. docs/losses.md defines the symbols and lists the
    differences from the authors' code.

    Parameters
    ----------
    reduce
        Computes a statistic over the images of all ranks (`heads.statistics.Reduce`).

    Inputs
    ------
    embedding : (B, E) float32
        Of any length; the loss normalises it if its formula says so.
    label : (B,) float32 or int32
        Class of each image, 0 to C - 1.
    margin_fraction : (1,) float32, optional
        Fraction w of the margin, from 0 (no margin) to 1 (the full margin, the default), for a
        warm-up. It is an input, so that a new value does not trace the graph again. It is required
        inside another hybridized block.

    Outputs
    -------
    loss : (B,) float32
    target_cosine : (B,) float32
        Cosine to the centre of the true class, without margin and scale; no gradient flows
        through it.

    Raises
    ------
    ValueError
        If a setting or a size is out of range or of the wrong type.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "Head":
        # Here, before any constructor: each class is checked against its own ranges only.
        declared = settings(cls)
        given = {key: value for key, value in kwargs.items() if key in declared}
        found = ((key, declared[key].problem(value)) for key, value in given.items())
        problems = [(key, text) for key, text in found if text]
        for key, text in problems or cross_problems(cls, given):
            raise ValueError(f"head.{key}: {text}")
        return super().__new__(cls)

    def __init__(self, *, reduce: Reduce = alone, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reduce = reduce

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self.update_statistics(embedding, label)
        if margin_fraction is None:
            margin_fraction = mx.nd.ones((1,), ctx=embedding.context, dtype=embedding.dtype)
        return super().forward(embedding, label, margin_fraction)

    def update_statistics(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        """Update statistics over batches; `forward` calls it in training, before the loss."""


class ClassHead(Head):
    """Head with one vector per class, a row of ``weight``.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes C, length E of the embedding.
    sub_centers
        Number of centres K of each class; ``weight`` is then (C K, E), with the centres of a class
        in adjacent rows.
    """

    initializer: mx.init.Initializer = init.Normal(0.01)

    def __init__(
        self, num_classes: int, embedding_size: int, *, sub_centers: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require("num_classes", int, at_least(2, "a softmax needs two classes"), num_classes)
        require("embedding_size", int, at_least(1, "use that of the net"), embedding_size)
        self._num_classes, self._dtype = num_classes, "float32"
        shape = (num_classes * sub_centers, embedding_size)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape, init=self.initializer)

    def cast(self, dtype: Any) -> None:
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name

    def cross_entropy(self, F: Any, *arrays: Any, form: Form, **options: Any) -> tuple[Any, Any]:
        """Call `heads.cross_entropy.cross_entropy` with the head's number of classes and dtype."""
        options |= {"num_classes": self._num_classes, "dtype": self._dtype}
        return cross_entropy(F, *arrays, form=form, **options)


def require(name: str, kind: type, within: Within, value: Any) -> None:
    """Raise ValueError if a value is not of the type and in the range."""
    if problem := Setting(name, kind, within, None).problem(value):
        raise ValueError(f"{name}: {problem}")

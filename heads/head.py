# SPDX-License-Identifier: Apache-2.0
"""The contract of all heads, and the check of their settings."""

import functools
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon, init

from ranges import Setting, Within, at_least, cross_problems, settings


def _checked(constructor):
    """Put a check of all settings before the constructor of a head."""

    @functools.wraps(constructor)
    def checked(self, *args, **kwargs):
        kind = type(self)
        if kind.__init__ is checked:  # not as the constructor of a base class
            declared = settings(kind)
            given = {key: value for key, value in kwargs.items() if key in declared}
            alone = ((key, declared[key].problem(value)) for key, value in given.items())
            problems = [(key, text) for key, text in alone if text]
            for key, text in problems or cross_problems(kind, given):
                raise ValueError(f"head.{key}: {text}")
        constructor(self, *args, **kwargs)

    return checked


class Head(gluon.HybridBlock):
    """Loss for each image of a batch of embeddings.

    A subclass is built as ``(num_classes, embedding_size, *, ...)``. Its keyword-only arguments,
    ``Annotated`` with their ranges, are its settings, the keys of ``head.*``. Further keyword
    arguments are those of a Gluon block. A static method ``problems(options)`` may yield (key,
    sentence) for settings that exclude each other. Heads that keep statistics take ``reduce`` third
    (`heads.statistics.Reduce`). Where the authors' code differs: docs/losses.md.

    Inputs
    ------
    embedding : (B, E) float32
        Of any length; normalised here where the loss wants it.
    label : (B,) float32 or int32
        Class of each image, 0 to C - 1.
    margin_fraction : (1,) float32, optional
        From 0 (no margin) to 1 (the full margin, the default), for a warm-up. An input, so a
        changed value does not trace again. Required inside another hybridized block.

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _checked(cls.__init__)

    def forward(self, embedding, label, margin_fraction=None):
        if margin_fraction is None:
            margin_fraction = mx.nd.ones((1,), ctx=embedding.context, dtype=embedding.dtype)
        return super().forward(embedding, label, margin_fraction)


class ClassHead(Head):
    """Head with a vector for each class, the rows of ``weight``.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes C, length E of the embedding.
    sub_centers
        Centres of each class K, side by side in ``weight``, (C K, E): the nearest one counts.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        sub_centers: int = 1,
        initializer: mx.init.Initializer | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        require("num_classes", int, at_least(2, "a softmax needs two to choose from"), num_classes)
        require("embedding_size", int, at_least(1, "give that of the net"), embedding_size)
        self._num_classes, self._dtype = num_classes, "float32"
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=(num_classes * sub_centers, embedding_size),
                init=initializer or init.Normal(0.01),
            )

    def cast(self, dtype):
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name


def require(name: str, kind: type, within: Within, value: Any) -> None:
    """Raise ValueError if a value is not of the type and in the range."""
    if problem := Setting(name, kind, within, None).problem(value):
        raise ValueError(f"{name}: {problem}")

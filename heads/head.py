# SPDX-License-Identifier: Apache-2.0
"""Base classes of all heads: `Head`, and `ClassHead` for losses with class centres."""

from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from heads.cross_entropy import Form, cross_entropy
from heads.normal_rows import NormalRows
from heads.prediction import nearest_centre
from heads.shard import Shard
from heads.statistics import Reduce, alone
from ranges import Setting, Within, at_least, refusal, require_valid, settings

NOT_SHARDED = dict.fromkeys(
    ("sharded", "sample_rate"),
    "this loss needs the centres of all classes on every rank; "
    "use a margin softmax such as head.name=arcface",
)
"""Settings that divide the classes among the ranks, with the reason why a head refuses them."""
NOT_FILTERED = {
    "interclass_filter": "this loss has no scaled cosines to all class centres; "
    "use a margin softmax such as head.name=arcface"
}
"""The setting ``interclass_filter``, with the reason why a head refuses this setting."""


class Head(gluon.HybridBlock):
    """Base class of the losses: a Gluon block that computes one loss per image of a batch.

    The constructor of a subclass has the form ``(num_classes, embedding_size, *, ...)``. Its
    keyword-only arguments are the settings of the loss, the keys of ``head.*``, and their
    ``Annotated`` types hold the ranges. The constructor passes all other arguments to its base
    class. A subclass may have a static method ``problems(options)`` that yields a pair
    (key, sentence) for each setting that contradicts another setting.

    The docstring of a loss begins with three paragraphs: summary, formula, paper.
    `tools.losses_table` prints the formula and the paper in docs/losses.md, which defines the
    symbols and lists the differences from the authors' code.

    Parameters
    ----------
    reduce
        Function that computes a statistic over the images of all ranks (`heads.statistics.Reduce`).

    Inputs
    ------
    embedding : (B, E) float32
        B embeddings of E dimensions, not normalised; the loss normalises them where its formula
        needs that.
    label : (B,) float32 or int32
        Class of each image, from 0 to C - 1 for C classes.
    margin_fraction : (1,) float32, optional
        Fraction w of the margin, from 0 (no margin) to 1 (the full margin, the default), for a
        warm-up. The fraction is an input of the graph, so that MXNet does not trace the graph again
        for a new value. Inside another hybridized block this input is required.

    Outputs
    -------
    loss : (B,) float32
        Loss of each image.
    target_cosine : (B,) float32
        Cosine of each embedding to the centre of the true class, without margin and scale. No
        gradient flows through the cosine.

    Raises
    ------
    ValueError
        If the head refuses a setting, or if a setting or a size is out of range or of the wrong
        type.
    """

    refused_settings: Mapping[str, str] = NOT_SHARDED | NOT_FILTERED
    """Settings of other heads that this head refuses, with the reason and what to do instead."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Head":
        # Check the settings before any constructor runs, so that the ranges that the class itself
        # declares apply, and not those of its base classes.
        for key in kwargs:
            if key in cls.refused_settings:
                raise ValueError(f"head.{key}: {refusal(cls, cls.__name__, key, kwargs[key])}")
        declared = settings(cls)
        require_valid("head", cls, {key: kwargs[key] for key in kwargs if key in declared})
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

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray | None:
        """Return, for each embedding, the class with the largest logit; no margin is applied.

        The input has the shape (B, E), the output (B,) float32. The result is None if the loss has
        no logits; the base class returns None.
        """
        return None

    def update_statistics(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        """Update the running statistics of the head with one batch.

        `forward` calls this method in training, before it computes the loss. The base class has no
        running statistics.
        """


class ClassHead(Head):
    """Head with a vector for each class: the class centres are the rows of ``weight``.

    Parameters
    ----------
    num_classes
        Number of classes C.
    embedding_size
        Number of dimensions E of an embedding.
    sub_centers
        Number of centres K of each class. ``weight`` has the shape (C K, E), with the centres of a
        class in adjacent rows.
    shard
        Classes whose centres this rank holds; None: all classes.
    """

    initializer: mx.init.Initializer = NormalRows(0.01)

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        sub_centers: int = 1,
        shard: Shard | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(
            "num_classes", int, at_least(2, "a softmax needs at least two classes"), num_classes
        )
        require(
            "embedding_size", int, at_least(1, "use the embedding size of the net"), embedding_size
        )
        self.num_classes, self._dtype = num_classes, "float32"
        self.sub_centers = sub_centers
        # MXNet refuses a parameter without rows, so a rank without classes has the rows of one
        # class.
        classes = max(1, shard.num_rows) if shard else num_classes
        shape = (classes * sub_centers, embedding_size)
        initializer = self.initializer
        if shard and isinstance(initializer, NormalRows):
            initializer = initializer.part(shard.start * sub_centers, num_classes * sub_centers)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape, init=initializer)

    def cast(self, dtype: Any) -> None:
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray | None:
        """Return the class of the nearest centre by cosine for each embedding; see `Head.predict`.

        A subclass overrides this method if its logits are not proportional to the cosines.
        """
        centre = nearest_centre(embedding, self.weight.list_data()[0])
        # This formula is exact in float32; floor(centre / sub_centers) is not.
        return (centre - centre % self.sub_centers) / self.sub_centers

    def cross_entropy(self, F: Any, *arrays: Any, form: Form, **options: Any) -> tuple[Any, Any]:
        """Call `heads.cross_entropy.cross_entropy` with the head's number of classes and dtype."""
        options |= {"num_classes": self.num_classes, "dtype": self._dtype}
        return cross_entropy(F, *arrays, form=form, **options)


def require(name: str, kind: type, within: Within, value: Any) -> None:
    """Raise ValueError unless a value has the type ``kind`` and lies in the range ``within``."""
    if problem := Setting(name, kind, within, None).problem(value):
        raise ValueError(f"{name}: {problem}")

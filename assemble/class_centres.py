# SPDX-License-Identifier: Apache-2.0
"""Take over class centres from a model, for the classes that the model and the run have in common.

A model from a run records its classes by record set and label (pipeline/records/class_record.py).
An imported model has no such record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from pipeline.records.class_record import match_classes

PER_CLASS = ("weight", "bias", "centers")
"""Names of head parameters whose rows belong to classes; a class may have several adjacent rows."""


@dataclass(frozen=True)
class ClassMatch:
    """Classes that a run and a model have in common, and a sentence about how they were found."""

    own: np.ndarray
    """Numbers in the run of the M common classes, int64 (M,)."""
    source: np.ndarray
    """Numbers in the model of the same M classes, in the same order, int64 (M,)."""
    source_count: int
    """Number of classes of the model."""
    reason: str


def find_match(
    choice: str,
    own: Mapping[str, Any],
    source: Mapping[str, Any] | None,
    rows: int,
    centres_per_class: int,
) -> ClassMatch:
    """Find the classes whose centres the run takes over.

    Parameters
    ----------
    choice
        "matching", "all" or "none", see ``train.class_centres``.
    own, source
        Records of the classes of the run and of the model.  ``source`` is None if the model states
        no number of classes.
    rows
        Number of rows in the model's array of class centres.
    centres_per_class
        Number of centres of each class in the head of the run.  If the model states no number of
        classes, the function assumes that the head of the model has the same number.

    Raises
    ------
    ValueError
        If ``choice`` is "all" and the numbers of classes differ.
    """
    count = int(own["num_classes"])
    source_count = int(source["num_classes"]) if source else max(1, rows // centres_per_class)
    everything, nothing = np.arange(count), np.arange(0)
    if choice == "none":
        return ClassMatch(nothing, nothing, source_count, "train.class_centres=none")
    if choice == "all":
        if source_count != count:
            raise ValueError(
                f"train.class_centres: 'all' needs equal numbers of classes, got {source_count} in "
                f"the model and {count} in the training data; use train.class_centres=matching"
            )
        return ClassMatch(everything, everything, source_count, "train.class_centres=all")
    if source and source["sets"] and own["sets"]:
        matched, origins = match_classes(source, own)
        reason = "those of the record sets that the model was trained on"
        if not len(matched):
            reason = "the model was trained on other record sets"
        return ClassMatch(matched, origins, source_count, reason)
    if source_count == count:
        reason = (
            "the model does not record its classes, so class k of the model is assumed to be class "
            "k of the training set; if that is wrong, set train.class_centres=none"
        )
        return ClassMatch(everything, everything, source_count, reason)
    reason = f"the model has {source_count} classes and does not record which people they are"
    return ClassMatch(nothing, nothing, source_count, reason)


def load_head(
    head: gluon.Block,
    stored: Mapping[str, np.ndarray],
    match: ClassMatch | None,
    classes: int,
    left_out: Collection[str] = (),
) -> str:
    """Load the parameters of a model's head into a head; return a text for the log.

    Class centres are loaded only for the classes in ``match``.  Other parameters are loaded if
    their name and shape fit.

    Parameters
    ----------
    head
        Initialised head of the run.
    stored
        Parameters of the head of the model, by name.
    match
        Classes that run and model have in common; None if head or model have no class centres.
    classes
        Number of classes of the run.
    left_out
        Names of the parameters to leave as they are.
    """
    own = head._collect_params_with_prefix()
    texts, missing = [], []
    for name, parameter in sorted(own.items()):
        if name in left_out:
            continue
        if name in PER_CLASS and name in stored and match:
            text = _load_rows(parameter, stored[name], match, classes)
            if name == "weight":
                texts.append(f"class centres taken over: {text}")
        elif name in stored and stored[name].shape == tuple(parameter.shape):
            parameter.set_data(mx.nd.array(stored[name], dtype="float32"))
        else:
            missing.append(name)
    if missing:
        texts.append(f"initialised randomly: {', '.join(missing)} (head)")
    return "; ".join(texts)


def _load_rows(
    parameter: gluon.Parameter, stored: np.ndarray, match: ClassMatch, classes: int
) -> str:
    """Load the rows of the common classes; return a text: how many classes are loaded, and why."""
    per_class, remainder = divmod(len(stored), match.source_count)
    own_per_class = parameter.shape[0] // classes
    if remainder or per_class != own_per_class or stored.shape[1:] != tuple(parameter.shape[1:]):
        return (
            f"0 of {classes} (the model has an array of shape {stored.shape} for "
            f"{match.source_count} classes, this head has one of shape {tuple(parameter.shape)})"
        )
    values = parameter.data().asnumpy()
    values[rows_of(match.own, per_class)] = stored[rows_of(match.source, per_class)]
    parameter.set_data(mx.nd.array(values, dtype="float32"))
    return f"{len(match.own)} of {classes} ({match.reason})"


def rows_of(classes: np.ndarray, per_class: int) -> np.ndarray:
    """Return the row numbers of classes; each class has ``per_class`` adjacent rows."""
    rows: np.ndarray = (classes[:, None] * per_class + np.arange(per_class)).reshape(-1)
    return rows

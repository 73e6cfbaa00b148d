# SPDX-License-Identifier: Apache-2.0
"""Class centres are taken over for the classes in common, and the log says which and why."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from assemble.class_centres import find_match, load_head
from heads import build_head

OLD = {"num_classes": 4, "sets": ["a"], "runs": [[0, 0, 0, 4]]}
NEW = {"num_classes": 6, "sets": ["b", "a"], "runs": [[0, 0, 0, 2], [2, 1, 0, 4]]}


def number(count):
    return {"num_classes": count, "sets": [], "runs": []}


def made(name="arcface", classes=6, **options):
    head = build_head(name, classes, 3, **options)
    head.initialize()
    return head, {n: p.data().asnumpy() for n, p in head._collect_params_with_prefix().items()}


def rows(count, start=0, width=3):
    return np.arange(start, start + count * width, dtype=np.float32).reshape(count, width)


def match(own, source, choice="matching", count=4, per_class=1):
    return find_match(choice, own, source, count, per_class)


def test_the_classes_of_the_same_record_sets_are_taken_over():
    head, random = made()
    found = match(NEW, OLD)
    text = load_head(head, {"weight": rows(4)}, found, 6)
    assert text == (
        "class centres taken over: 4 of 6 (those of the record sets that the model was trained on)"
    )
    weight = head.weight.data().asnumpy()
    assert (weight[2:] == rows(4)).all() and (weight[:2] == random["weight"][:2]).all()


def test_other_record_sets_have_no_class_in_common_even_if_the_numbers_are_equal():
    head, random = made(classes=4)
    found = match({**OLD, "sets": ["c"]}, OLD)
    text = load_head(head, {"weight": rows(4)}, found, 4)
    assert text == ("class centres taken over: 0 of 4 (the model was trained on other record sets)")
    assert (head.weight.data().asnumpy() == random["weight"]).all()


@pytest.mark.parametrize("source", [None, number(4)], ids=["imported", "older checkpoint"])
def test_a_model_without_a_record_needs_an_equal_number_of_classes(source):
    head, _ = made(classes=4)
    text = load_head(head, {"weight": rows(4)}, match(OLD, source), 4)
    assert text.startswith("class centres taken over: 4 of 4 (the model does not record its ")
    assert (head.weight.data().asnumpy() == rows(4)).all()
    head, random = made()
    text = load_head(head, {"weight": rows(4)}, match(NEW, source), 6)
    assert text == (
        "class centres taken over: 0 of 6 (the model has 4 classes and does not record which "
        "people they are)"
    )
    assert (head.weight.data().asnumpy() == random["weight"]).all()


def test_all_centres_of_a_class_are_taken_over():
    head, random = made("sub_center_arcface", sub_centers=3)
    text = load_head(head, {"weight": rows(12)}, match(NEW, OLD, count=12, per_class=3), 6)
    assert text.startswith("class centres taken over: 4 of 6 ")
    weight = head.weight.data().asnumpy()
    assert (weight[6:] == rows(12)).all() and (weight[:6] == random["weight"][:6]).all()


@pytest.mark.parametrize("source", [OLD, number(12), None])
def test_another_number_of_centres_per_class_is_never_taken_for_classes(source):
    # 12 rows: one centre for each of 12 classes of the model, or three for each of 4 classes.
    own = number(12)
    head, random = made(classes=12)
    if source is OLD:  # the model has three centres per class, the head one
        own = {**OLD, "num_classes": 12, "runs": [[0, 0, 0, 12]]}
        text = load_head(head, {"weight": rows(12)}, match(own, source, count=12), 12)
        assert text == (
            "class centres taken over: 0 of 12 (the model has an array of shape (12, 3) for 4 "
            "classes, this head has one of shape (12, 3))"
        )
        assert (head.weight.data().asnumpy() == random["weight"]).all()
        return
    text = load_head(head, {"weight": rows(12)}, match(own, source, count=12), 12)
    assert text.startswith("class centres taken over: 12 of 12 (the model does not")
    sub, random = made("sub_center_arcface", classes=4, sub_centers=3)
    found = match(number(4), number(12), count=12, per_class=3)
    text = load_head(sub, {"weight": rows(12)}, found, 4)
    assert text.startswith("class centres taken over: 0 of 4 (")
    assert (sub.weight.data().asnumpy() == random["weight"]).all()


def test_every_array_with_rows_per_class_follows():
    head, random = made("softmax", use_bias=True)
    stored = {"weight": rows(4), "bias": np.arange(4, dtype=np.float32)}
    load_head(head, stored, match(NEW, OLD), 6)
    assert head.bias.data().asnumpy().tolist() == [0, 0, 0, 1, 2, 3]
    head, random = made("center")
    load_head(head, {"weight": rows(4), "centers": rows(4, 50)}, match(NEW, OLD), 6)
    assert (head.centers.data().asnumpy()[2:] == rows(4, 50)).all()
    assert (head.centers.data().asnumpy()[:2] == random["centers"][:2]).all()


def test_statistics_are_loaded_and_missing_parameters_are_named():
    head, _ = made("curricularface")
    text = load_head(head, {"t": np.array([0.25], np.float32)}, None, 6)
    assert text == "initialised randomly: weight (head)"
    assert head.t.data().asscalar() == 0.25
    assert load_head(build_head("n_pair", 6, 3), {"weight": rows(6)}, None, 6) == ""


def test_the_choice_overrides_the_records():
    head, random = made(classes=4)
    found = match({**OLD, "sets": ["c"]}, OLD, "all")
    assert load_head(head, {"weight": rows(4)}, found, 4) == (
        "class centres taken over: 4 of 4 (train.class_centres=all)"
    )
    head, random = made(classes=4)
    assert "0 of 4" in load_head(head, {"weight": rows(4)}, match(OLD, OLD, "none"), 4)
    assert (head.weight.data().asnumpy() == random["weight"]).all()
    with pytest.raises(ValueError, match="'all' needs equal numbers of classes, got 4 in the mod"):
        match(NEW, OLD, "all")


def test_the_centres_keep_their_device():
    head = build_head("arcface", 4, 3)
    head.initialize(ctx=mx.cpu(1))
    load_head(head, {"weight": rows(4)}, match(OLD, OLD), 4)
    assert head.weight.list_ctx() == [mx.cpu(1)]
    assert (head.weight.list_data()[0].asnumpy() == rows(4)).all()


def test_an_empty_array_of_a_model_is_not_taken_over():
    head, random = made("sub_center_arcface", classes=4, sub_centers=3)
    found = match(number(4), None, count=2, per_class=3)
    text = load_head(head, {"weight": rows(2)}, found, 4)
    assert text.startswith("class centres taken over: 0 of 4 (the model has an array of shape (2,")
    assert (head.weight.data().asnumpy() == random["weight"]).all()

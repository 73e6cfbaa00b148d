from __future__ import annotations

import pytest

from interchange.model import InterchangeError
from interchange.state_dict import find_state_dict, strip_prefixes
from interchange.stored_tensor import StoredTensor
from interchange.torch_pickle import Storage, TensorView

VIEW = TensorView(Storage("0", "float32", 1), 0, (1,), (1,))


def find(content):
    return find_state_dict("a.pth", content, lambda view: StoredTensor(view.shape, "float32", None))


def test_a_prefix_of_some_names_only_is_kept():
    names = {"module.a": None, "b": None}
    assert strip_prefixes(names) == (names, [])


def test_prefixes_of_nested_wrappers_are_removed():
    assert strip_prefixes({"_orig_mod.module.backbone.a": 1, "_orig_mod.module.b": 2}) == (
        {"a": 1},
        ["b"],
    )


def test_entries_that_are_no_tensors_are_named():
    state = find({"a": VIEW, "version": 3, b"b": VIEW})
    assert [*state.tensors] == ["a", "b"]
    assert state.notices == ("a.pth: entries without a tensor are ignored: 'version'",)


def test_state_dicts_may_be_nested_twice():
    state = find({"model": {"state_dict": {"a": VIEW}, "epoch": 1}})
    assert [*state.tensors] == ["a"] and "'epoch'" in state.notices[0]


def test_a_dict_that_contains_itself_is_refused():
    content: dict = {}
    content["model"] = content
    with pytest.raises(InterchangeError, match="must contain a state dict, got a dict of 1"):
        find(content)

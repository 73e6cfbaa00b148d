from __future__ import annotations

import pickle
from collections import OrderedDict

import pytest

from interchange.torch_pickle import Storage, TensorView, TorchObjects
from plain_pickle import PlainPickleError, load_with
from tools.fuzzing.torch_files import dump, tensor

import numpy as np  # isort: skip


def load(data: bytes) -> object:
    return load_with(data, TorchObjects(encodable_characters=len(data)))[0]


def test_nested_numbers_text_and_dicts_are_read():
    content = {"a": [1, 2.5, None, True], 3: OrderedDict(x=(b"y", "z")), "lr": -1e-300}
    for protocol in range(1, 5):
        assert load(pickle.dumps(content, protocol)) == content


def test_numpy_scalars_beside_the_tensors_are_read():
    assert load(pickle.dumps({"accuracy": np.float64(0.5)}, 2)) == {"accuracy": 0.5}


def test_a_tensor_is_a_view_of_a_storage():
    data, _ = dump([tensor(np.zeros((2, 3), np.float32))])
    assert load(data) == [TensorView(Storage("0", "float32", 6), 0, (2, 3), (3, 1))]


def test_text_of_python_2_names_a_storage():
    data = b"(S'storage'\nctorch\nFloatStorage\nS'7'\nS'cpu'\nI4\nt\x51."  # \x51 is BINPERSID
    assert load(data) == Storage("7", "float32", 4)


@pytest.mark.parametrize(
    "data",
    [
        b"(S'module'\nS'x'\nS'y'\nS'z'\nt\x51.",
        b"(S'storage'\nctorch\nFloatStorage\nS'7'\nS'cpu'\nI-4\nt\x51.",
        b"(S'storage'\nNS'7'\nS'cpu'\nI4\nt\x51.",
        b"N\x51.",
        b"}(((I1\ntI1\ntI2\nu.",  # a tuple as a key
        b"}(L9999999999999999999999L\nI2\nu.",
        b"]NNs.",
        b"ccollections\nOrderedDict\n(I5\ntR.",
        b"ctorch\nSize\n(I5\ntR.",
        b"ctorch._utils\n_rebuild_parameter\n(I5\nI1\nI1\ntR.",
        b"}I1\nb.",
    ],
)
def test_malformed_objects_are_refused(data):
    with pytest.raises(PlainPickleError, match="got"):
        load(data)


def test_two_descriptions_of_one_storage_are_refused():
    one = b"(S'storage'\nctorch\n%bStorage\nS'7'\nS'cpu'\nI4\nt\x51"
    with pytest.raises(PlainPickleError, match="two descriptions of one storage"):
        load(b"](" + one % b"Float" + one % b"Double" + b"e.")


def test_attributes_of_a_state_dict_are_ignored():
    state = OrderedDict(a=1)
    state._metadata = {"": {"version": 1}}
    assert load(pickle.dumps(state, 2)) == {"a": 1}

from __future__ import annotations

import random
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from interchange.model import InterchangeError
from interchange.torch_file import read_torch_file
from tools.fuzzing.torch_files import (
    SAVERS,
    Parameter,
    Storage,
    Tensor,
    dump,
    save_legacy,
    save_zip,
    tensor,
)


class Attack:
    """Object whose unpickling creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def read(path) -> dict[str, np.ndarray]:
    return {name: each.read() for name, each in read_torch_file(path).tensors.items()}


@pytest.fixture(params=SAVERS)
def save(request, tmp_path):
    def write(content):
        SAVERS[request.param](tmp_path / "net.pth", content)
        return tmp_path / "net.pth"

    return write


def test_views_of_a_shared_storage_keep_offset_and_strides(save):
    shared = Storage(VALUES.reshape(-1))
    path = save(
        OrderedDict(
            whole=Tensor(shared, 0, (2, 3, 4), (12, 4, 1)),
            transposed=Tensor(shared, 0, (4, 3), (1, 4)),
            later=Tensor(shared, 13, (2,), (5,)),
            scalar=Tensor(shared, 7, (), ()),
            parameter=Parameter(Tensor(shared, 4, (4,), (1,))),
        )
    )
    found = read(path)
    np.testing.assert_array_equal(found["whole"], VALUES)
    np.testing.assert_array_equal(found["transposed"], VALUES[0].T)
    np.testing.assert_array_equal(found["later"], [13, 18])
    np.testing.assert_array_equal(found["parameter"], [4, 5, 6, 7])
    assert found["scalar"] == 7 and found["scalar"].shape == ()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_each_element_type_is_read(save, dtype):
    values = np.array([[1.5, -2], [0, 70]]).astype(dtype)
    found = read_torch_file(save({"a": tensor(values)})).tensors["a"]
    assert found.dtype == dtype and found.shape == (2, 2)
    np.testing.assert_array_equal(found.read(), values)


def test_bfloat16_becomes_float32(save):
    bits = np.array([0x3F80, 0xC000, 0x4049], np.uint16)
    found = read(save({"a": tensor(bits, "BFloat16")}))["a"]
    np.testing.assert_array_equal(found, np.array([1, -2, 3.140625], np.float32))


@pytest.mark.parametrize("key", ["state_dict_backbone", "state_dict", "model"])
def test_a_nested_state_dict_is_found_and_the_rest_is_named(save, key):
    content = {"epoch": 3, "lr": 0.1, key: {"module.backbone.a": tensor(VALUES)}}
    state = read_torch_file(save(content))
    assert [*state.tensors] == ["a"]
    assert len(state.notices) == 1 and "'epoch', 'lr'" in state.notices[0]


def test_tensors_beside_the_backbone_are_named(save):
    state = read_torch_file(save({"backbone.a": tensor(VALUES), "head.weight": tensor(VALUES)}))
    assert [*state.tensors] == ["a"] and "'head.weight'" in state.notices[0]


def test_code_in_a_file_does_not_run_and_its_global_is_named(save, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(
        InterchangeError, match=r"got the global 'builtins\.exec'|__builtin__\.exec"
    ):
        read_torch_file(save({"a": tensor(VALUES), "b": Attack(canary)}))
    assert not canary.exists()


def test_code_that_the_instance_opcode_calls_is_named(tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"(S'touch x'\nios\nsystem\n.")
    with pytest.raises(InterchangeError, match=r"got the global 'os\.system'"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ((0, (25,), (1,)), "larger than its storage"),
        ((20, (5,), (1,)), "larger than its storage"),
        ((0, (2**40, 2**40), (0, 0)), "larger than its storage"),
        ((-1, (2,), (1,)), "arguments that no valid file passes"),
        ((0, (2,), (-1,)), "arguments that no valid file passes"),
        ((0, (2, 2), (1,)), "arguments that no valid file passes"),
    ],
)
def test_a_view_outside_its_storage_is_refused(save, view, message):
    with pytest.raises(InterchangeError, match=message):
        read_torch_file(save({"a": Tensor(Storage(VALUES.reshape(-1)), *view)}))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    zeros = np.zeros(2**22, np.float32)
    save_zip(path, {"a": tensor(zeros)}, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(InterchangeError, match="without compression"):
            read_torch_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_members_that_share_bytes_of_the_archive_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    save_zip(path, {"a": tensor(VALUES)})
    with zipfile.ZipFile(path, "a") as archive:
        for index in range(30):
            member = zipfile.ZipInfo(f"model/copy{index}")
            source = archive.getinfo("model/data/0")
            member.header_offset = source.header_offset
            member.file_size = member.compress_size = 10**6
            member.CRC = 0
            archive.filelist.append(member)
        archive._didModify = True
    with pytest.raises(InterchangeError, match="at least as large as its members together"):
        read_torch_file(path)


@pytest.mark.parametrize("size", [0, 1, 40, 200, -200, -1])
def test_a_truncated_file_is_refused(save, size):
    path = save({"a": tensor(VALUES)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InterchangeError, match="got"):
        read(path)


def test_random_damage_raises_no_other_error(save):
    path = save({"state_dict": OrderedDict(a=tensor(VALUES), b=Parameter(tensor(VALUES)))})
    content = path.read_bytes()
    chooser = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(chooser.randint(1, 4)):
            damaged[chooser.randrange(len(damaged))] = chooser.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except InterchangeError:
            refused += 1
    assert refused > 25


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must contain a state dict, got a dict of 0"),
        ({"epoch": 3}, "with the keys 'epoch'"),
        ([1, 2], "must contain a state dict, got a list of 2"),
        (tensor(VALUES), "must contain a state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(save, content, message):
    with pytest.raises(InterchangeError, match=message):
        read_torch_file(save(content))


def test_a_missing_storage_is_refused(tmp_path):
    data, _ = dump({"a": tensor(VALUES)})
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", data)
    with pytest.raises(InterchangeError, match="got no member 'a/data/0'"):
        read_torch_file(tmp_path / "a.pth")


def test_a_torchscript_program_is_refused(tmp_path):
    save_zip(tmp_path / "a.pt", {"a": tensor(VALUES)})
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(InterchangeError, match="TorchScript"):
        read_torch_file(tmp_path / "a.pt")


def test_a_file_of_another_format_and_a_missing_file_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(InterchangeError, match="cannot be read as a PyTorch file"):
        read_torch_file(path)
    path.write_bytes(b"not a model at all")
    with pytest.raises(InterchangeError, match="neither of the two formats"):
        read_torch_file(path)


def test_the_stated_number_of_elements_must_match_the_legacy_file(tmp_path):
    path = tmp_path / "a.pth"
    save_legacy(path, {"a": tensor(VALUES)})
    content = path.read_bytes()
    size = len(content) - VALUES.nbytes - 8
    path.write_bytes(content[:size] + (25).to_bytes(8, "little") + content[size + 8 :])
    with pytest.raises(InterchangeError, match="got 25 elements"):
        read_torch_file(path)

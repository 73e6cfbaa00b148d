# SPDX-License-Identifier: Apache-2.0
"""Collectives through host memory; mx.cpu(1) stands in for a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from launch.ranks import comm as communication
from launch.ranks import host_allreduce
from launch.ranks.comm import HorovodComm
from launch.ranks.host_allreduce import HostCopies, HostTrainer, in_host_memory

DEVICE = mx.cpu(1)


def test_copies_are_in_host_memory_and_results_are_copied_back():
    arrays = [mx.nd.array([1, 2, 3], ctx=DEVICE), mx.nd.ones((2, 2), ctx=DEVICE, dtype="float64")]
    copies = HostCopies(arrays)
    copies.copy_from_device()
    assert [copy.context for copy in copies.copies] == [mx.cpu(0)] * 2
    assert [copy.dtype for copy in copies.copies] == [np.float32, np.float64]
    for copy in copies.copies:
        copy *= 10
    assert arrays[0].asnumpy().tolist() == [1, 2, 3]
    copies.copy_to_device()
    assert arrays[0].asnumpy().tolist() == [10, 20, 30]
    assert arrays[1].asnumpy().tolist() == [[10, 10], [10, 10]]
    assert arrays[0].context == DEVICE


def test_copies_keep_their_names():
    arrays = {"b": mx.nd.array([1.0], ctx=DEVICE), "a": mx.nd.array([2.0], ctx=DEVICE)}
    with in_host_memory(arrays) as copies:
        assert {name: copy.asscalar() for name, copy in copies.items()} == {"b": 1, "a": 2}
        copies["b"] += 4
    assert arrays["b"].asscalar() == 5 and arrays["a"].asscalar() == 2


def test_the_trainer_updates_with_the_sum_over_all_ranks():
    weight = mx.gluon.Parameter("weight", shape=(2,))
    fixed = mx.gluon.Parameter("fixed", shape=(1,), grad_req="null")
    for parameter in (weight, fixed):
        parameter.initialize(mx.init.One(), ctx=DEVICE)
    seen = []

    def sum_of_three_equal_ranks(arrays):
        seen.append([array.context for array in arrays])
        for array in arrays:
            array *= 3

    optimizer = mx.optimizer.create("sgd", learning_rate=0.5)
    parameters = {"weight": weight, "fixed": fixed}
    trainer = HostTrainer(parameters, optimizer, 3, sum_of_three_equal_ranks)
    for expected in ([0.75, 1.5], [0.5, 2.0]):
        with mx.autograd.record():
            loss = (weight.data() * mx.nd.array([2.0, -4.0], ctx=DEVICE)).sum()
        loss.backward()
        trainer.allreduce_grads()
        assert weight.grad().asnumpy().tolist() == [6, -12]  # the sum
        trainer.update(4)
        assert weight.data().asnumpy().tolist() == expected
    assert seen == [[mx.cpu(0)]] * 2
    assert fixed.data().asscalar() == 1


def test_pinned_copies_belong_to_the_gpu_of_their_arrays(monkeypatch):
    on = mx.gpu(3)
    asked = []

    def empty(shape, ctx, dtype):
        asked.append(ctx)
        return np.empty(shape, dtype)

    monkeypatch.setattr(mx.nd, "empty", empty)
    gradient = SimpleNamespace(shape=(2, 3), dtype=np.float32, context=on)
    HostCopies([gradient], pinned=True)
    HostCopies([gradient])  # a temporary copy is not pinned
    HostCopies([SimpleNamespace(shape=(2,), dtype=np.float32, context=DEVICE)], pinned=True)
    assert asked == [mx.cpu_pinned(3), mx.cpu(), mx.cpu()]

    def without_pinned(shape, ctx, dtype):
        if ctx.device_type == "cpu_pinned":
            raise mx.base.MXNetError("CUDA: out of memory")
        return empty(shape, ctx, dtype)

    monkeypatch.setattr(mx.nd, "empty", without_pinned)
    HostCopies([gradient], pinned=True)
    assert asked[3:] == [mx.cpu()]


def test_pinned_copies_are_copied_both_ways(monkeypatch):
    monkeypatch.setattr(host_allreduce, "is_gpu", lambda ctx: ctx == DEVICE)
    array = mx.nd.array([1, 2, 3], ctx=DEVICE)  # MXNet without CUDA accepts cpu_pinned, too
    copies = HostCopies([array], pinned=True)
    copies.copy_from_device()
    (copy,) = copies.copies
    assert copy.context == mx.cpu_pinned(DEVICE.device_id)
    copy *= 10
    copies.copy_to_device()
    assert array.asnumpy().tolist() == [10, 20, 30]


def test_the_trainer_allocates_its_copies_once(monkeypatch):
    weight = mx.gluon.Parameter("weight", shape=(2,))
    weight.initialize(mx.init.One(), ctx=DEVICE)
    allocations = []

    class Recorded(HostCopies):
        def __init__(self, arrays, pinned=False):
            allocations.append(pinned)
            super().__init__(arrays, pinned)

    monkeypatch.setattr(host_allreduce, "HostCopies", Recorded)
    optimizer = mx.optimizer.create("sgd", learning_rate=0.5)
    trainer = HostTrainer({"weight": weight}, optimizer, 1, lambda arrays: None)
    for _ in range(2):
        trainer.allreduce_grads()
    assert allocations == [True]


@pytest.mark.parametrize(
    ("ctx", "built_with", "host"),
    [
        (mx.gpu(0), "", True),
        (mx.gpu(1), "2.21.5", False),
        (mx.cpu(), "", False),
        (mx.cpu(), "2.21.5", False),
    ],
)
def test_host_memory_is_used_for_gpus_without_nccl(ctx, built_with, host, monkeypatch):
    monkeypatch.setattr(communication, "nccl_release", lambda: built_with)
    assert communication.through_host(ctx) is host
    notice = HorovodComm(0, 2, 0, 2).notice(ctx)
    assert notice.startswith("the ranks exchange gradients through host memory") is host
    assert bool(notice) is host
    assert communication.Comm().notice(ctx) == ""

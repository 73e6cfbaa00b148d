# SPDX-License-Identifier: Apache-2.0
"""Arrays of a device by way of the host's memory; mx.cpu(1) stands for a GPU."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from launch import comm as communication
from launch.comm import HorovodComm
from launch.host_memory import HostTrainer, HostTwins, in_host_memory

DEVICE = mx.cpu(1)


def test_twins_lie_in_the_hosts_memory_and_results_come_back():
    arrays = [mx.nd.array([1, 2, 3], ctx=DEVICE), mx.nd.ones((2, 2), ctx=DEVICE, dtype="float64")]
    copies = HostTwins(arrays)
    copies.fetch()
    assert [twin.context for twin in copies.twins] == [mx.cpu(0)] * 2
    assert [twin.dtype for twin in copies.twins] == [np.float32, np.float64]
    for twin in copies.twins:
        twin *= 10
    assert arrays[0].asnumpy().tolist() == [1, 2, 3]
    copies.give_back()
    assert arrays[0].asnumpy().tolist() == [10, 20, 30]
    assert arrays[1].asnumpy().tolist() == [[10, 10], [10, 10]]
    assert arrays[0].context == DEVICE


def test_names_are_kept():
    arrays = {"b": mx.nd.array([1.0], ctx=DEVICE), "a": mx.nd.array([2.0], ctx=DEVICE)}
    with in_host_memory(arrays) as twins:
        assert {name: twin.asscalar() for name, twin in twins.items()} == {"b": 1, "a": 2}
        twins["b"] += 4
    assert arrays["b"].asscalar() == 5 and arrays["a"].asscalar() == 2


def test_trainer_updates_with_the_sum_over_all_ranks():
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


@pytest.mark.parametrize(
    ("ctx", "built_with", "host"),
    [
        (mx.gpu(0), "", True),
        (mx.gpu(1), "2.21.5", False),
        (mx.cpu(), "", False),
        (mx.cpu(), "2.21.5", False),
    ],
)
def test_the_hosts_memory_is_for_gpus_without_nccl(ctx, built_with, host, monkeypatch):
    monkeypatch.setattr(communication, "nccl_release", lambda: built_with)
    assert communication.through_host(ctx) is host
    notice = HorovodComm(0, 2, 0, 2).notice(ctx)
    assert notice.startswith("gradients travel through the host's memory") is host
    assert bool(notice) is host
    assert communication.Comm().notice(ctx) == ""

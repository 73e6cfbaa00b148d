# SPDX-License-Identifier: Apache-2.0
"""The stand-in of one process that trains alone."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from launch.comm import Comm, NoConnection, connect


def test_alone_without_a_launcher(monkeypatch):
    for name in ("HOROVOD_SIZE", "HOROVOD_RANK"):
        monkeypatch.delenv(name, raising=False)
    comm = connect()
    assert type(comm) is Comm
    assert (comm.rank, comm.size, comm.local_rank, comm.local_size) == (0, 1, 0, 1)


def test_one_rank_launched_is_alone_too(monkeypatch):
    monkeypatch.setenv("HOROVOD_SIZE", "1")
    assert type(connect()) is Comm


def test_collectives_give_back_what_one_rank_has():
    comm = Comm()
    total = comm.sum(np.array([1, 2], dtype=np.int32))
    assert total.dtype == np.float64 and total.tolist() == [1, 2]
    rows = np.arange(6, dtype=np.int64).reshape(3, 2)
    assert (comm.gather(rows) == rows).all()
    assert comm.gather_json({"a": None}) == [{"a": None}]
    arrays = {"x": mx.nd.array([1.0, 3.0])}
    comm.average(arrays)
    comm.broadcast(arrays)
    assert arrays["x"].asnumpy().tolist() == [1, 3]
    comm.close()


def test_trainer_updates_at_once():
    parameter = mx.gluon.Parameter("weight", shape=(2,))
    parameter.initialize(mx.init.One())
    trainer = Comm().trainer({"weight": parameter}, mx.optimizer.create("sgd", learning_rate=0.5))
    with mx.autograd.record():
        loss = (parameter.data() * mx.nd.array([2.0, -4.0])).sum()
    loss.backward()
    trainer.allreduce_grads()
    trainer.update(4)
    assert parameter.data().asnumpy().tolist() == [0.75, 1.5]


def test_a_host_that_does_not_know_its_name_is_refused(monkeypatch):
    # Gloo would not survive it.
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
    with pytest.raises(NoConnection) as caught:
        connect()
    assert "got 'no-such-host.invalid'" in str(caught.value)
    assert "add the line '127.0.1.1 no-such-host.invalid' to /etc/hosts" in str(caught.value)

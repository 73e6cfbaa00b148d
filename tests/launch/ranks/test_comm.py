# SPDX-License-Identifier: Apache-2.0
"""Communication of a single rank, and the library that Horovod needs on a GPU."""

from __future__ import annotations

import ctypes

import mxnet as mx
import numpy as np
import pytest

from launch.ranks import comm as communication
from launch.ranks.comm import Comm, HorovodComm, NoLink, connect


def test_without_a_launcher_there_is_one_rank(monkeypatch):
    for name in ("HOROVOD_SIZE", "HOROVOD_RANK"):
        monkeypatch.delenv(name, raising=False)
    comm = connect()
    assert type(comm) is Comm
    assert (comm.rank, comm.size, comm.local_rank, comm.local_size) == (0, 1, 0, 1)


def test_a_launcher_may_start_a_single_rank(monkeypatch):
    monkeypatch.setenv("HOROVOD_SIZE", "1")
    assert type(connect()) is Comm


def test_collectives_of_a_single_rank_return_their_input():
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


def test_the_trainer_of_a_single_rank_updates_its_parameters():
    parameter = mx.gluon.Parameter("weight", shape=(2,))
    parameter.initialize(mx.init.One())
    trainer = Comm().trainer({"weight": parameter}, mx.optimizer.create("sgd", learning_rate=0.5))
    with mx.autograd.record():
        loss = (parameter.data() * mx.nd.array([2.0, -4.0])).sum()
    loss.backward()
    trainer.allreduce_grads()
    trainer.update(4)
    assert parameter.data().asnumpy().tolist() == [0.75, 1.5]


def test_horovod_with_nccl_requires_libcuda_so(monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(communication, "nccl_release", lambda: "2.21.5")
    ranks = HorovodComm(0, 2, 0, 2)
    with pytest.raises(NoLink) as caught:
        ranks.require_link(mx.gpu(0))
    assert str(caught.value) == (
        "launch: Horovod with NCCL loads the NVIDIA driver as libcuda.so, got libcuda.so: cannot "
        "open shared object file: No such file or directory; create a symbolic link of that name "
        "in the folder of libcuda.so.1 (ldconfig -p | grep libcuda.so.1) and run ldconfig"
    )
    assert asked == ["libcuda.so"] and isinstance(caught.value, ValueError)
    # No other device or build loads it.
    ranks.require_link(mx.cpu())
    Comm().require_link(mx.gpu(0))
    monkeypatch.setattr(communication, "nccl_release", lambda: "")
    ranks.require_link(mx.gpu(0))
    assert asked == ["libcuda.so"]


def test_an_existing_libcuda_so_is_accepted(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(communication, "nccl_release", lambda: "2.21.5")
    HorovodComm(0, 2, 0, 2).require_link(mx.gpu(1))


LOST = "MXNetError: Horovod has been shut down. This was caused by an exception on one of the ranks"
GLOO = "[/tmp/third_party/gloo/gloo/transport/tcp/pair.cc:589] Read error [::1]:1: Connection reset"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (mx.base.MXNetError(LOST), True),
        (mx.base.MXNetError(GLOO), True),
        (mx.base.MXNetError("Shape mismatch"), False),
        (ValueError(LOST), False),
    ],
)
def test_a_lost_connection_is_told_from_other_errors(error, lost):
    assert HorovodComm(0, 2, 0, 2).has_lost(error) is lost
    assert Comm().has_lost(error) is False


def test_without_a_launchers_server_the_message_names_no_rank(monkeypatch):
    monkeypatch.delenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", raising=False)
    heard = []
    HorovodComm(0, 2, 0, 2).name_lost_ranks(heard.append)
    assert heard == [
        "launch: the connection to another rank is lost; see the messages of that rank"
    ]

# SPDX-License-Identifier: Apache-2.0
"""The stand-in of one process that trains alone, and names of hosts that Horovod cannot use."""

from __future__ import annotations

import ctypes
import socket
import sys

import mxnet as mx
import numpy as np
import pytest

from launch.ranks import comm as communication
from launch.ranks.comm import Comm, HorovodComm, NoConnection, NoLink, connect


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


def unknown(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


def test_a_host_that_does_not_know_its_name_is_refused(monkeypatch):
    # Gloo would not survive it.
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
    monkeypatch.setattr("socket.getaddrinfo", unknown)  # not the network's answer, which may vary
    with pytest.raises(NoConnection) as caught:
        connect()
    assert "got 'no-such-host.invalid'" in str(caught.value)
    assert "add the line '127.0.1.1 no-such-host.invalid' to /etc/hosts" in str(caught.value)


def name_stands_for(address, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]
    monkeypatch.setattr("socket.gethostname", lambda: "gpu1")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize("address", ["127.0.1.1", "127.0.0.1", "::1"])
def test_several_hosts_refuse_a_name_that_no_other_host_reaches(address, monkeypatch):
    # Horovod's process sets bind to it, whatever the interface; Gloo would abort.
    name_stands_for(address, monkeypatch)
    monkeypatch.setenv("HOROVOD_SIZE", "4")
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", "2")
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "10.0.0.1")
    with pytest.raises(NoConnection) as caught:
        connect()
    assert str(caught.value) == (
        "launch: the name of this host must stand for an address that the other hosts reach, "
        f"got {address} for 'gpu1'; put that address in front of gpu1 in its /etc/hosts"
    )


@pytest.mark.parametrize(
    ("address", "local_size", "server"),
    [
        ("10.0.0.1", "2", "10.0.0.1"),  # as it should be
        ("127.0.1.1", "4", "10.0.0.1"),  # one host alone
        ("127.0.1.1", "2", "127.0.0.1"),  # "hosts" that are one
    ],
)
def test_a_name_that_serves_is_not_refused(address, local_size, server, monkeypatch):
    name_stands_for(address, monkeypatch)
    monkeypatch.setenv("HOROVOD_SIZE", "4")
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", local_size)
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", server)
    monkeypatch.setitem(sys.modules, "horovod.mxnet", None)  # importing it is as far as it goes
    with pytest.raises(ImportError):
        connect()


def test_horovod_with_nccl_needs_the_driver_by_another_name(monkeypatch):
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
        "open shared object file: No such file or directory; make a link of that name to "
        "libcuda.so.1 beside it (ldconfig -p | grep libcuda.so.1 says where) and call ldconfig"
    )
    assert asked == ["libcuda.so"] and isinstance(caught.value, ValueError)
    # Nobody else asks for it.
    ranks.require_link(mx.cpu())
    Comm().require_link(mx.gpu(0))
    monkeypatch.setattr(communication, "nccl_release", lambda: "")
    ranks.require_link(mx.gpu(0))
    assert asked == ["libcuda.so"]


def test_a_driver_by_that_name_is_enough(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(communication, "nccl_release", lambda: "2.21.5")
    HorovodComm(0, 2, 0, 2).require_link(mx.gpu(1))

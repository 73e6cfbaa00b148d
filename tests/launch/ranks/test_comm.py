# SPDX-License-Identifier: Apache-2.0
"""Communication of a single rank, and host names that Horovod cannot use."""

from __future__ import annotations

import ctypes
import socket
import sys

import mxnet as mx
import numpy as np
import pytest

from launch.ranks import comm as communication
from launch.ranks.comm import Comm, HorovodComm, NoConnection, NoLink, connect


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


def unknown(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


def test_an_unresolvable_host_name_is_refused(monkeypatch):
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
    monkeypatch.setattr("socket.getaddrinfo", unknown)  # independent of the real network
    with pytest.raises(NoConnection) as caught:
        connect()
    assert "got 'no-such-host.invalid'" in str(caught.value)
    assert "add the line '127.0.1.1 no-such-host.invalid' to /etc/hosts" in str(caught.value)


def resolve_name_to(address, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]
    monkeypatch.setattr("socket.gethostname", lambda: "gpu1")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize("address", ["127.0.1.1", "127.0.0.1", "::1"])
def test_a_loopback_host_name_is_refused_for_several_hosts(address, monkeypatch):
    # Horovod's process sets bind to this address on any interface, and Gloo would abort.
    resolve_name_to(address, monkeypatch)
    monkeypatch.setenv("HOROVOD_SIZE", "4")
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", "2")
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "10.0.0.1")
    with pytest.raises(NoConnection) as caught:
        connect()
    assert str(caught.value) == (
        "launch: the name of this host must resolve to an address that other hosts can reach, "
        f"got {address} for 'gpu1'; change the address of gpu1 in /etc/hosts"
    )


@pytest.mark.parametrize(
    ("address", "local_size", "server"),
    [
        ("10.0.0.1", "2", "10.0.0.1"),  # a reachable address
        ("127.0.1.1", "4", "10.0.0.1"),  # a single host
        ("127.0.1.1", "2", "127.0.0.1"),  # several host names on one machine
    ],
)
def test_a_reachable_host_name_is_accepted(address, local_size, server, monkeypatch):
    resolve_name_to(address, monkeypatch)
    monkeypatch.setenv("HOROVOD_SIZE", "4")
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", local_size)
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", server)
    monkeypatch.setitem(sys.modules, "horovod.mxnet", None)  # connect() fails here, after the check
    with pytest.raises(ImportError):
        connect()


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

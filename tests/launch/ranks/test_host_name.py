# SPDX-License-Identifier: Apache-2.0
"""Host names that Horovod cannot use are refused before Horovod is loaded."""

from __future__ import annotations

import socket
import sys

import pytest

from launch.ranks.comm import connect
from launch.ranks.host_name import NoConnection


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

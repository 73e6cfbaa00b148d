# SPDX-License-Identifier: Apache-2.0
"""Addresses and interfaces of this host."""

from __future__ import annotations

import socket

import pytest

from launch.launchers import network
from launch.launchers.options import UsageError


def test_loopback_serves_one_host_and_is_named():
    assert network.own_address(["localhost"]) == "127.0.0.1"
    name = network.interface_towards("127.0.0.1")
    assert network.address_of(name) == "127.0.0.1"
    assert network.own_address(["any", "other"], name) == "127.0.0.1"


def test_the_address_is_that_on_the_way_to_another_host(monkeypatch):
    ways = {"me": "127.0.0.1", "unknown": None, "other": "10.0.0.1"}
    monkeypatch.setattr(network, "_source_address", ways.get)
    assert network.own_address(["me", "unknown", "other"]) == "10.0.0.1"
    with pytest.raises(UsageError, match="no network leads from this host to the others, got me, "):
        network.own_address(["me", "unknown"])


def test_interfaces_that_do_not_serve_are_refused(monkeypatch):
    with pytest.raises(UsageError) as error:
        network.address_of("no-such-nic")
    assert "got 'no-such-nic'; known on " in str(error.value)
    monkeypatch.setattr(network, "_source_address", lambda host: None)
    with pytest.raises(UsageError, match="leads to the launcher, got '10.0.0.1'; give --network"):
        network.interface_towards("10.0.0.1")


def test_a_host_that_is_not_known_has_no_way(monkeypatch):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    class Socket:
        connect = unknown
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(network.socket, "socket", lambda *_: Socket())
    assert network._source_address("nowhere.invalid") is None

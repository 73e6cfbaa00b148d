# SPDX-License-Identifier: Apache-2.0
"""Addresses and network interfaces of this host."""

from __future__ import annotations

import socket

import pytest

from launch.launchers import network
from launch.launchers.options import UsageError


def test_a_single_host_uses_the_loopback_interface():
    assert network.find_own_address(["localhost"]) == "127.0.0.1"
    name = network.find_interface("127.0.0.1")
    assert network.find_address(name) == "127.0.0.1"
    assert network.find_own_address(["any", "other"], name) == "127.0.0.1"


def test_the_address_belongs_to_the_route_to_another_host(monkeypatch):
    routes = {"me": "127.0.0.1", "unknown": None, "other": "10.0.0.1"}
    monkeypatch.setattr(network, "_source_address", routes.get)
    assert network.find_own_address(["me", "unknown", "other"]) == "10.0.0.1"
    with pytest.raises(UsageError, match="this host has no route to the other hosts, got me, "):
        network.find_own_address(["me", "unknown"])


def test_unsuitable_interfaces_are_refused(monkeypatch):
    with pytest.raises(UsageError) as error:
        network.find_address("no-such-nic")
    assert "got 'no-such-nic'; choose one of " in str(error.value)
    monkeypatch.setattr(network, "_source_address", lambda host: None)
    with pytest.raises(
        UsageError, match="has no route to the launcher, got '10.0.0.1'; name an interface with "
    ):
        network.find_interface("10.0.0.1")


def test_an_unknown_host_has_no_route(monkeypatch):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    class Socket:
        connect = unknown
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(network.socket, "socket", lambda *_: Socket())
    assert network._source_address("nowhere.invalid") is None

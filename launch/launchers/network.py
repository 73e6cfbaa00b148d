# SPDX-License-Identifier: Apache-2.0
"""Find the address and the network interface of this host for connections with other hosts."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psutil

from launch.launchers.options import UsageError

LOOPBACK = "127.0.0.1"


def find_own_address(hosts: Sequence[str], interface: str | None = None) -> str:
    """Return the IPv4 address of this host at which the other hosts can reach it.

    Parameters
    ----------
    hosts
        Names of all hosts of the run; may include this host.
    interface
        Name of the network interface; None uses the interface of the route to the other hosts.

    Raises
    ------
    UsageError
        If there are several hosts but no route to any other host, or if ``interface`` does not
        exist or has no IPv4 address.
    """
    if interface is not None:
        return find_address(interface)
    for host in hosts:
        address = _source_address(host)
        if address is not None and not address.startswith("127."):
            return address
    if len(hosts) == 1:
        return LOOPBACK
    raise UsageError(
        f"launch: this host has no route to the other hosts, got {', '.join(hosts)}; "
        "name an interface with --network-interface, such as eth0"
    )


def find_address(interface: str) -> str:
    """Return the IPv4 address of a network interface of this host.

    Raises
    ------
    UsageError
        If the interface does not exist or has no IPv4 address.
    """
    known = psutil.net_if_addrs()
    for address in known.get(interface, []):
        if address.family == socket.AF_INET:
            return address.address
    raise UsageError(
        f"launch: the network interface does not exist or has no IPv4 address, got {interface!r}; "
        f"choose one of the interfaces of {socket.gethostname()}: {', '.join(known)}"
    )


def find_interface(address: str) -> str:
    """Return the network interface of the route from this host to an address.

    Raises
    ------
    UsageError
        If this host has no route to the address.
    """
    source = _source_address(address)
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and a.address == source for a in addresses):
            return name
    raise UsageError(
        f"launch: host {socket.gethostname()} has no route to the launcher, got {address!r}; "
        "name an interface with --network-interface, such as eth0"
    )


def _source_address(host: str) -> str | None:
    """Return the source address of packets to a host; None if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # for UDP, connect looks up the route and sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]

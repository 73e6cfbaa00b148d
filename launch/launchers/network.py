# SPDX-License-Identifier: Apache-2.0
"""Which address and which interface of this host other hosts can reach."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psutil

from launch.launchers.options import UsageError

LOOPBACK = "127.0.0.1"


def own_address(hosts: Sequence[str], interface: str | None = None) -> str:
    """Return the IPv4 address under which this host is known to the others.

    Parameters
    ----------
    hosts
        Names of the hosts that take part, this one may be among them.
    interface
        The interface to use; None takes the one on the way to the others.

    Raises
    ------
    UsageError
        If there are several hosts and no way to another one is found, or if the interface has no
        IPv4 address.
    """
    if interface is not None:
        return address_of(interface)
    for host in hosts:
        address = _source_address(host)
        if address is not None and not address.startswith("127."):
            return address
    if len(hosts) == 1:
        return LOOPBACK
    raise UsageError(
        f"launch: no network leads from this host to the others, got {', '.join(hosts)}; "
        "give --network-interface, such as eth0"
    )


def address_of(interface: str) -> str:
    """Return the IPv4 address of an interface of this host.

    Raises
    ------
    UsageError
        If there is no such interface, or it has no IPv4 address.
    """
    known = psutil.net_if_addrs()
    for address in known.get(interface, []):
        if address.family == socket.AF_INET:
            return address.address
    raise UsageError(
        f"launch: no network interface with an IPv4 address has this name, got {interface!r}; "
        f"known on {socket.gethostname()}: {', '.join(known)}"
    )


def interface_towards(address: str) -> str:
    """Return the interface of this host on the way to an address.

    Raises
    ------
    UsageError
        If none is found.
    """
    source = _source_address(address)
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and a.address == source for a in addresses):
            return name
    raise UsageError(
        f"launch: no network interface of {socket.gethostname()} leads to the launcher, "
        f"got {address!r}; give --network-interface, such as eth0"
    )


def _source_address(host: str) -> str | None:
    """Return the address that packets from here to a host carry; None if it is unknown."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing: it asks the routing table alone
        except OSError:
            return None
        return probe.getsockname()[0]

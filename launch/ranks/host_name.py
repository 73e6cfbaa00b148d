# SPDX-License-Identifier: Apache-2.0
"""Check that other ranks can connect to the address of this host's name."""

from __future__ import annotations

import ipaddress
import os
import socket

__all__ = ["NoConnection", "require_host_address"]


class NoConnection(ValueError):
    """Error of a rank that cannot connect to the other ranks, and therefore exits alone."""


def require_host_address() -> None:
    """Raise NoConnection unless the name of this host has an address that other ranks can reach."""
    _check_host_name(socket.gethostname(), _has_other_hosts())


def _has_other_hosts() -> bool:
    """Return whether ranks on other hosts connect to this host."""
    size = os.environ.get("HOROVOD_SIZE", "1")
    local_size = os.environ.get("HOROVOD_LOCAL_SIZE", size)
    # If the rendezvous server has a loopback address, all ranks run on the host of that server.
    server = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "")
    return int(size) > int(local_size) and not server.startswith("127.")


def _check_host_name(name: str, several_hosts: bool) -> None:
    # Horovod 0.28 passes the network interface to its first Gloo device only.  The devices of its
    # process sets, including the global set, bind to the address of the host name.
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        address = "ADDRESS (reachable from the other hosts)" if several_hosts else "127.0.1.1"
        raise NoConnection(
            f"launch: the name of this host cannot be resolved, got {name!r} ({error.strerror}); "
            f"add the line '{address} {name}' to /etc/hosts"
        ) from None
    address = str(found[0][4][0])
    if several_hosts and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise NoConnection(
            f"launch: the name of this host must resolve to an address that other hosts can reach, "
            f"got {address} for {name!r}; change the address of {name} in /etc/hosts"
        )

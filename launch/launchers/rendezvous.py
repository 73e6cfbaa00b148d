# SPDX-License-Identifier: Apache-2.0
"""Horovod's rendezvous server, for launchers that start the ranks themselves.

The only importer of horovod.runner: it belongs to the process that starts the ranks and knows
neither MXNet nor collectives, which are launch/ranks/comm.py's in the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.launchers.options import Host


@contextmanager
def rendezvous(hosts: Sequence[Host]) -> Iterator[int]:
    """Serve the ranks of these hosts, on all addresses of this one; give the port."""
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer()
    port = server.start()
    slots = [HostInfo(host.name, host.ranks) for host in hosts]
    server.init(get_host_assignments(slots, sum(host.ranks for host in hosts)))
    try:
        yield port
    finally:
        server.stop()

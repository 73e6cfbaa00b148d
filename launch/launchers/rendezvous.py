# SPDX-License-Identifier: Apache-2.0
"""Horovod's rendezvous server, for launchers that do not use horovodrun.

Only this module imports horovod.runner.  It runs in the process of the launcher, which does not
import MXNet.  The ranks import horovod.mxnet in launch/ranks/comm.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.launchers.options import Host


@contextmanager
def run_rendezvous_server(hosts: Sequence[Host]) -> Iterator[int]:
    """Run Horovod's rendezvous server on this host for the ranks of all hosts; yield its port."""
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

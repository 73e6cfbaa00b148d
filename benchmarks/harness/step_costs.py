# SPDX-License-Identifier: Apache-2.0
"""Count what the steps of one rank cost: bytes sent over TCP connections, and CPU time (Linux)."""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from dataclasses import dataclass

# Position of tcpi_bytes_sent in struct tcp_info of linux/tcp.h, since Linux 4.19.
_SENT_OFFSET, _INFO_BYTES = 200, 208


@dataclass
class StepCosts:
    """Bytes and CPU time of the steps of this rank."""

    steps: int = 0
    """Number of steps since `start`; the benchmark counts them."""
    passed_bytes: int = 0
    """Sum of the sizes of the arrays passed to Horovod; 0 if the benchmark does not count them."""
    before_bytes: int = 0
    before_cpu_s: float = 0.0

    def start(self) -> None:
        """Start counting."""
        self.steps, self.passed_bytes = 0, 0
        self.before_bytes, self.before_cpu_s = sent_bytes(), time.process_time()

    def per_step(self) -> dict[str, float]:
        """Return the KiB sent, the KiB passed to Horovod and the CPU milliseconds, all per step."""
        steps = max(1, self.steps)
        cpu_s = time.process_time() - self.before_cpu_s
        found = {
            "sent_kib": (sent_bytes() - self.before_bytes) / 1024 / steps,
            "cpu_milliseconds": 1000 * cpu_s / steps,
        }
        if self.passed_bytes:
            found["passed_kib"] = self.passed_bytes / 1024 / steps
        return found


def sent_bytes() -> int:
    """Return the payload bytes that all open TCP connections of this process have sent.

    The kernel counts the bytes of each connection, with retransmissions and without headers.
    """
    return sum(map(_sent_by, os.listdir("/proc/self/fd")))


def _sent_by(descriptor: str) -> int:
    try:
        if not stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode):
            return 0
        connection = socket.socket(fileno=os.dup(int(descriptor)))
    except OSError:  # The descriptor is already closed.
        return 0
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        if connection.type != socket.SOCK_STREAM:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES:
        raise OSError(
            "benchmark: the kernel's structure tcp_info must contain a counter of sent bytes, got "
            f"a structure of {len(info)} bytes without this counter; use Linux 4.19 or newer"
        )
    return struct.unpack_from("=Q", info, _SENT_OFFSET)[0]

# SPDX-License-Identifier: Apache-2.0
"""Count the bytes that this process has sent over its TCP connections (Linux)."""

from __future__ import annotations

import os
import socket
import struct

# Position of tcpi_bytes_sent in struct tcp_info of linux/tcp.h, since Linux 4.19.
_SENT_OFFSET, _INFO_BYTES = 200, 208


def sent_bytes() -> int:
    """Return the payload bytes that all open TCP connections of this process have sent.

    The kernel counts the bytes of each connection, with retransmissions and without headers.
    """
    return sum(map(_sent_by, os.listdir("/proc/self/fd")))


def _sent_by(descriptor: str) -> int:
    try:
        connection = socket.socket(fileno=os.dup(int(descriptor)))
    except OSError:  # not a socket, or already closed
        return 0
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        if connection.type != socket.SOCK_STREAM:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES:
        raise OSError(
            f"benchmark: the kernel must report sent bytes, got {len(info)} bytes of tcp_info; "
            "use Linux 4.19 or newer"
        )
    return struct.unpack_from("=Q", info, _SENT_OFFSET)[0]

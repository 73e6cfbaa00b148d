# SPDX-License-Identifier: Apache-2.0
"""Bytes and CPU time per step."""

from __future__ import annotations

import os
import socket

import pytest

from benchmarks.harness.step_costs import StepCosts, sent_bytes


@pytest.fixture
def connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            peer, _ = server.accept()
            with peer:
                yield client, peer


def test_the_bytes_of_tcp_connections_are_counted(connection):
    client, peer = connection
    before = sent_bytes()
    client.sendall(b"x" * 1000)
    assert len(peer.recv(1000, socket.MSG_WAITALL)) == 1000
    assert sent_bytes() - before == 1000


def test_the_costs_are_those_of_one_step(connection):
    client, peer = connection
    costs = StepCosts()
    costs.start()
    for _ in range(4):
        client.sendall(b"x" * 512)
        peer.recv(512, socket.MSG_WAITALL)
        costs.steps += 1
        costs.passed_bytes += 2048
    found = costs.per_step()
    assert (found["sent_kib"], found["passed_kib"]) == (0.5, 2.0)
    assert found["cpu_milliseconds"] >= 0


def test_files_and_other_sockets_do_not_count(tmp_path):
    before = sent_bytes()
    one, other = socket.socketpair()
    with one, other, (tmp_path / "file").open("w") as file:
        file.write("x" * 100)
        one.sendall(b"x" * 100)
        assert sent_bytes() == before


def test_counting_leaves_no_descriptor_open(connection, tmp_path):
    with (tmp_path / "file").open("w"):
        before = os.listdir("/proc/self/fd")
        sent_bytes()
        assert os.listdir("/proc/self/fd") == before

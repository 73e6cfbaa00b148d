# SPDX-License-Identifier: Apache-2.0
"""Roll call of the ranks after a lost connection, with Horovod's rendezvous server."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

from launch.launchers.options import Host
from launch.launchers.rendezvous import run_rendezvous_server
from launch.ranks import roll_call
from launch.ranks.roll_call import (
    ADVICE,
    ENDED,
    Board,
    RollCall,
    claim_cause,
    describe_end,
    end_message,
    find_board,
    report_end,
    wait_status,
)


@pytest.fixture
def board():
    with run_rendezvous_server([Host("localhost", 3)]) as port:
        yield Board("127.0.0.1", port)


def lost(board, rank, size, heard):
    """Do what a rank does after a lost connection; append its message to ``heard``."""
    call = RollCall(board, rank, size)
    states, is_speaker = call.find_missing()
    text = call.error_message(states) if is_speaker else ""
    call.speak(is_speaker, lambda: heard.append(text))


def all_lost(board, ranks, size):
    heard = []
    threads = [
        threading.Thread(target=lost, args=(board, rank, size, heard), daemon=True)
        for rank in ranks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return heard


def test_a_frozen_rank_is_named_with_its_host_by_one_rank(board, monkeypatch):
    for rank in range(3):
        RollCall(board, rank, 3).join()
    monkeypatch.setattr(roll_call, "ROLL_CALL_S", 1.0)
    assert all_lost(board, (0, 2), 3) == [
        f"rank 1 on {socket.gethostname()} has not answered for 30 s; check that host, its disks "
        f"and its network; {ADVICE}"
    ]


def test_the_state_from_the_companion_of_a_killed_rank_is_repeated(board):
    RollCall(board, 0, 3).join()
    board.put("end-0", "was killed by signal 9 (SIGKILL)")
    assert all_lost(board, (1, 2), 3) == [
        f"rank 0 on {socket.gethostname()} was killed by signal 9 (SIGKILL); `dmesg` on that host "
        f"says whether its memory ran out; {ADVICE}"
    ]


def test_no_rank_speaks_after_the_companion_has_spoken(board):
    board.put("end-0", "was killed by signal 9 (SIGKILL)")
    assert claim_cause(board)
    assert not claim_cause(board)
    assert all_lost(board, (1, 2), 3) == []


def test_a_rank_that_ended_after_a_killed_one_is_not_named(board):
    board.put("end-0", ENDED)
    board.put("end-1", "was killed by signal 11 (SIGSEGV)")
    (text,) = all_lost(board, (2,), 3)
    assert "rank 1 " in text and "rank 0 " not in text


def test_a_rank_that_crashed_after_a_killed_one_is_not_named(board):
    board.put("end-0", "was killed by signal 6 (SIGABRT)")
    board.put("end-1", "was killed by signal 9 (SIGKILL)")
    (text,) = all_lost(board, (2,), 3)
    assert "rank 1 " in text and "rank 0 " not in text


def test_a_rank_that_ended_alone_is_named(board):
    board.put("end-1", ENDED)
    (text,) = all_lost(board, (0,), 2)
    assert text.startswith(f"rank 1 on an unknown host {ENDED}; its own message names the reason; ")


def test_a_lost_network_between_running_ranks_is_named(board):
    (text,) = all_lost(board, (0, 1, 2), 3)
    assert text.startswith("launch: the ranks lost their connection to each other, although all ")


def test_the_message_about_many_ranks_stays_short(board, monkeypatch):
    monkeypatch.setattr(roll_call, "ROLL_CALL_S", 0.2)
    (text,) = all_lost(board, (0,), 100)
    assert text.count(" has not answered for 30 s") == 4
    assert "95 more ranks are missing" in text


def test_a_server_that_has_ended_counts_as_no_value():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        board = Board("127.0.0.1", free.getsockname()[1])
        assert board.get("end-0") == "" and not board.put("end-0", "x")


def test_values_of_the_server_are_short_and_printable(board):
    board.put("end-0", "a\x1b[31m\n" + "b" * 10_000)
    assert board.get("end-0") == "a[31m" + "b" * (200 - len("a\x1b[31m\n"))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"HOROVOD_SIZE": "1"}, False),
        ({"HOROVOD_GLOO_RENDEZVOUS_ADDR": ""}, False),
        ({"HOROVOD_GLOO_RENDEZVOUS_PORT": "x"}, False),
    ],
)
def test_only_several_ranks_of_a_launcher_have_a_board(changes, found):
    variables = {
        "HOROVOD_SIZE": "2",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "1",
        **changes,
    }
    assert (find_board(variables) is not None) == found


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "was killed or crashed"),
        (9, "was killed by signal 9 (SIGKILL)"),
        (11 | 0x80, "was killed by signal 11 (SIGSEGV)"),  # with a core dump
        (3 << 8, "ended with exit code 3"),
        (wait_status(137), "was killed by signal 9 (SIGKILL)"),
        (wait_status(-9), "was killed by signal 9 (SIGKILL)"),
        (wait_status(1), "ended with exit code 1"),
    ],
)
def test_the_end_of_a_process_is_described(status, text):
    assert describe_end(status) == text
    assert end_message("0", text, "gpu1").startswith(f"rank 0 on gpu1 {text}; ")


def environment_of(rank, board):
    return {
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": "3",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": board._address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(board._port),
    }


def test_the_first_killed_rank_alone_has_a_message(board):
    assert report_end(0, environment_of(0, board)) == ""  # exited
    assert report_end(signal.SIGTERM, environment_of(0, board)) == ""
    state = "was killed by signal 9 (SIGKILL)"
    message = end_message("2", state, socket.gethostname())
    assert report_end(signal.SIGKILL, environment_of(2, board)) == message
    assert report_end(signal.SIGKILL, environment_of(1, board)) == ""  # a consequence
    assert board.get("end-1") == board.get("end-2") == state


@pytest.mark.parametrize("core", [0, 0x80], ids=["", "core dumped"])
def test_a_crash_is_named_only_if_no_other_rank_was_killed(core, board, monkeypatch):
    texts = []
    monkeypatch.setattr(roll_call, "CRASH_WAIT_S", 60.0)
    crash = threading.Thread(
        target=lambda: texts.append(report_end(signal.SIGABRT | core, environment_of(1, board)))
    )
    crash.start()
    assert board.wait("end-1", 60)
    assert "rank 2 " in report_end(signal.SIGKILL, environment_of(2, board))
    crash.join(60)
    assert texts == [""]


def test_a_crash_alone_is_named(board, monkeypatch):
    monkeypatch.setattr(roll_call, "CRASH_WAIT_S", 0.1)
    text = report_end(signal.SIGSEGV, environment_of(1, board))
    assert "rank 1 " in text and "was killed by signal 11 (SIGSEGV)" in text

# SPDX-License-Identifier: Apache-2.0
"""Name the rank that was killed or froze, after the other ranks have lost their connection to it.

Horovod reports a lost connection with the same error on every remaining rank, and the error names
no rank.  Each remaining rank therefore writes a key to Horovod's rendezvous server, which runs in
the launcher.  If a rank has ended, its companion process (launch/ranks/companion.py) writes to the
server how the rank ended.  A rank without a key is frozen, or its host is unreachable.

The module uses the standard library only, because the companion runs without site-packages.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

SCOPE = "face-roll-call"
REQUEST_TIMEOUT_S = 1.0
ROLL_CALL_S = 3.0
"""Seconds that a rank waits for the keys of the others; horovodrun kills ranks after 5 s."""
SILENCE_S = 30
"""Seconds after which Gloo reports a rank that does not answer; fixed in Horovod 0.28."""
POLL_S = 0.05
MAX_VALUE_BYTES = 200
MAX_NAMED_RANKS = 4
ENDED = "has ended before the other ranks"
"""State of a rank that has exited without a signal; such a rank prints its own error message."""
STATUSES_WITHOUT_MESSAGE = (0, *map(int, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))
"""Wait statuses of a rank that need no message: 0, or the end by a stop signal."""
CRASH_WAIT_S = 1.0
"""Seconds that a crashed rank waits for the name of another rank as the cause."""
NO_ANSWER = f"has not answered for {SILENCE_S} s"
"""State of a rank that is frozen or whose host cannot be reached."""
KILLED = "was killed by signal "
"""Start of the state of a rank that a signal has ended."""
UNKNOWN_END = "was killed or crashed"
"""State of a rank whose wait status only its parent process could read."""
ADVICE = "the same command resumes the run from its last checkpoint"


class Board:
    """Client of the key-value server in the launcher; a failed request counts as an absent value.

    Parameters
    ----------
    address, port
        Address and port of Horovod's rendezvous server.
    """

    def __init__(self, address: str, port: int):
        self._address, self._port = address, port

    def put(self, key: str, text: str) -> bool:
        """Store a text of at most MAX_VALUE_BYTES; return whether the server has stored it."""
        return self._request("PUT", key, text.encode()[:MAX_VALUE_BYTES]) is not None

    def get(self, key: str) -> str:
        """Return the stored text, or "" if there is none."""
        data = self._request("GET", key, None) or b""
        # Any program that reaches the server can write there: accept one short printable line.
        return "".join(c for c in data.decode(errors="replace") if c.isprintable())

    def wait(self, key: str, timeout_s: float) -> str:
        """Wait until a text is stored, at most ``timeout_s`` seconds; return the text, or ""."""
        deadline = time.monotonic() + timeout_s
        while not (text := self.get(key)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return text

    def _request(self, method: str, key: str, body: bytes | None) -> bytes | None:
        connection = HTTPConnection(self._address, self._port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request(method, f"/{SCOPE}/{quote(key)}", body)
            answer = connection.getresponse()
            return answer.read(MAX_VALUE_BYTES) if answer.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


def find_board(environment: Mapping[str, str]) -> Board | None:
    """Return a client of the rendezvous server; None if there is one rank, or no such server."""
    address = environment.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "")
    port = environment.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
    several = environment.get("HOROVOD_SIZE", "1") != "1"
    return Board(address, int(port)) if several and address and port.isdecimal() else None


@dataclass(frozen=True)
class RollCall:
    """Exchange of the states of all ranks through the launcher's server, without collectives.

    Parameters
    ----------
    board
        Client of the key-value server in the launcher.
    rank, size
        Number of this rank, and number of ranks.
    """

    board: Board
    rank: int
    size: int

    def join(self) -> None:
        """Store the name of this host, which the other ranks use in their error messages."""
        self.board.put(f"host-{self.rank}", socket.gethostname())

    def find_missing(self) -> tuple[dict[int, str], bool]:
        """Find the ranks that have ended or do not answer.

        Return a dict from rank to state, and whether this rank prints the error message for all
        remaining ranks.
        """
        self.board.put(f"lost-{self.rank}", "1")
        states: dict[int, str] = {}
        remaining = {self.rank}
        deadline = time.monotonic() + ROLL_CALL_S
        while len(states) + len(remaining) < self.size and time.monotonic() < deadline:
            for rank in sorted({*range(self.size)} - {*states} - remaining):
                if state := self.board.get(f"end-{rank}"):
                    states[rank] = state
                elif self.board.get(f"lost-{rank}"):
                    remaining.add(rank)
                if time.monotonic() > deadline:
                    break
            time.sleep(POLL_S)
        for rank in sorted({*range(self.size)} - {*states} - remaining):
            states[rank] = NO_ANSWER
        return states, self.rank == min(remaining)

    def error_message(self, states: Mapping[int, str]) -> str:
        """Return the error message about the ranks in ``states``, which ended or do not answer."""
        if not states:
            return (
                "launch: the ranks lost their connection to each other, although all are running; "
                f"check the network between the hosts; {ADVICE}"
            )
        # The end of one rank makes the others end, so a killed or frozen rank is the cause.
        causes = {r: s for r, s in states.items() if s != ENDED} or dict(states)
        # A rank that loses its connection may crash, so a rank that was killed is the cause.
        killed = {r: s for r, s in causes.items() if s.startswith(KILLED) and s not in CRASH_STATES}
        causes = killed or causes
        named = [
            f"rank {rank} on {self.board.get(f'host-{rank}') or 'an unknown host'} {state}"
            for rank, state in sorted(causes.items())[:MAX_NAMED_RANKS]
        ]
        if len(causes) > MAX_NAMED_RANKS:
            named.append(f"{len(causes) - MAX_NAMED_RANKS} more ranks are missing")
        return f"{', '.join(named)}; {_hint(causes.values())}; {ADVICE}"

    def speak(self, is_speaker: bool, write: Callable[[], None]) -> None:
        """Call ``write`` if ``is_speaker``; on the other ranks, wait until ``write`` has returned.

        No rank calls ``write`` if the companion process of a killed rank has already named that
        rank.
        """
        if is_speaker:
            if claim_cause(self.board):
                write()
            self.board.put("spoken", "1")
        else:
            self.board.wait("spoken", ROLL_CALL_S)


def claim_cause(board: Board) -> bool:
    """Return True to the first process of a run that calls this function, else False.

    The process that gets True prints why the run has ended.  Two processes that call this function
    at the same moment may both get True; then both print the reason.
    """
    if board.get("cause"):
        return False
    board.put("cause", "1")
    return True


def end_message(rank: str, state: str, host: str) -> str:
    """Return the error message about a rank that has ended, with the name of its host."""
    return f"rank {rank} on {host} {state}; {_hint([state])}; {ADVICE}"


def make_roll_call(rank: int, size: int) -> RollCall | None:
    """Return the `RollCall` of a rank; None for one rank, or without a rendezvous server."""
    board = find_board(os.environ)
    return RollCall(board, rank, size) if board else None


def report_end(status: int | None, environment: Mapping[str, str]) -> str:
    """Report the end of a rank to the other ranks; return the message to print, or "".

    The message is "" in three cases: the wait status is 0, and such a rank has printed its own
    message; a stop signal ended the rank; or another process has already named the cause.

    MXNet can corrupt its memory when a collective fails: several threads then append to its list of
    exceptions without a lock.  So a rank that has lost its connection sometimes crashes.  The
    function therefore waits up to CRASH_WAIT_S seconds for another cause before it names a crash.

    Parameters
    ----------
    status
        Wait status of the rank; None if the status is unknown.
    environment
        Environment variables of the rank.
    """
    state = ENDED if status == 0 else describe_end(status)
    rank, board = environment.get("HOROVOD_RANK", "0"), find_board(environment)
    if board is not None:
        board.put(f"end-{rank}", state)
    needs_message = status not in STATUSES_WITHOUT_MESSAGE
    if board is not None and state in CRASH_STATES:
        board.wait("cause", CRASH_WAIT_S)
    is_first = needs_message and (board is None or claim_cause(board))
    return end_message(rank, state, socket.gethostname()) if is_first else ""


def describe_end(status: int | None) -> str:
    """Describe how a process ended.

    Parameters
    ----------
    status
        Wait status of the process as in /proc/PID/stat; None if the status is unknown.
    """
    if status is None:
        return UNKNOWN_END
    if number := status & 0x7F:
        names = {each.value: f" ({each.name})" for each in signal.Signals}
        return f"{KILLED}{number}{names.get(number, '')}"
    return f"ended with exit code {status >> 8}"


def wait_status(exit_code: int) -> int:
    """Convert an exit code, of a shell (128 + signal) or Popen (-signal), to a wait status."""
    if exit_code < 0:
        return -exit_code
    return exit_code - 128 if exit_code > 128 else exit_code << 8


def _hint(states: Collection[str]) -> str:
    if any(state in CRASH_STATES for state in states):
        return "train.log contains the Python stack of that rank"
    if any(state.startswith("was killed") for state in states):
        return "`dmesg` on that host says whether its memory ran out"
    if all(state == ENDED for state in states):
        return "its own message names the reason"
    return "check that host, its disks and its network"


CRASH_STATES = tuple(
    describe_end(number)
    for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
)
"""States of a rank that has crashed, perhaps because it lost its connection to another rank."""

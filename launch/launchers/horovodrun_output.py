# SPDX-License-Identifier: Apache-2.0
"""Filter the output of horovodrun: no prefixes, and one message about a rank that was killed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from launch.launchers.supervise import Reader
from launch.ranks.roll_call import (
    CRASH_STATES,
    NO_ANSWER,
    STATUSES_WITHOUT_MESSAGE,
    UNKNOWN_END,
    describe_end,
    end_message,
    wait_status,
)


class HorovodrunReader(Reader):
    """Output filter for horovodrun: prints the lines of rank 0 and all errors without prefixes.

    The reader holds a message about a rank that crashed or did not answer until the output ends.
    If a signal ended another rank first, the reader names that rank instead.  It also names a rank
    that a signal ended first if no process of the run has printed an error message.

    Parameters
    ----------
    hosts
        Name of the host of each rank, in rank order.
    """

    stderr = subprocess.STDOUT  # stdout and stderr share a pipe: a prefix names the stream

    # On SIGTERM horovodrun waits 5 s and kills its ranks.  If horovodrun hangs, the launcher kills
    # horovodrun; the companion process of each rank then stops the rank within 3.5 s.
    kill_after_s = 6.5

    _prefix = re.compile(r"^\[(\d+)\]<(stdout|stderr)>:?")
    _first_exit_message = re.compile(r"^Exit code: (-?\d+)")
    _exit_message = re.compile(r"^Process (\d+) exit with status code (-?\d+)")
    # ssh exits with code 255 if it loses the connection.  The rank's exit code is then unknown.
    _ssh_failure_code = 255
    # These messages of horovodrun about a failed rank are hidden: the rank has printed the reason.
    _own_message = re.compile(
        r"^(Process \d+ exit with status code|Terminating remaining workers|"
        r"Traceback \(most recent|RuntimeError: Horovod detected|Process name: )"
    )

    # These lines and empty lines are hidden, because launch/ranks/roll_call.py reports the missing
    # rank more clearly.  The shell of a killed rank prints how the rank ended, and a thread of
    # Horovod prints that the connection is lost.
    _noise = re.compile(
        r"^(Terminated|Killed|Aborted|Bus error|Segmentation fault)( \(core dumped\))?$|"
        r"^\[.*Horovod background loop uncaught exception: |^$"
    )
    # The lines of a crashed rank from the first such line on: glibc, the C++ library, Python
    # (faulthandler) or MXNet prints it.  They are shown only with a message that names this rank,
    # because a rank may crash after another rank was killed.
    _crash = re.compile(
        r"^(malloc|free|realloc|calloc|sysmalloc|\w+_chunk|malloc_\w+|tcache_\w+)(\(\))?: |"
        r"^(double free or corruption|corrupted (size vs|double-linked)|terminate called )|"
        r"^(Fatal Python error: |Segmentation fault: 11$)"
    )
    # A message with one of these states may name a rank that is not the cause, or not the whole
    # cause: the rank that ended first is named instead.
    _doubtful = (*CRASH_STATES, NO_ANSWER)
    _message = re.compile(r"^run_train: rank (\d+) ")

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__()
        self._hosts = hosts
        self._exits: list[tuple[int, int]] = []  # rank and exit code
        self._has_message = self._names_rank = False  # of the messages that were printed
        self._doubtful_message = ""  # held until the end of the output
        self._crash_lines: dict[str, list[str]] = {}  # of each crashed rank
        self._held: tuple[str, str] | None = None  # rank, and message with UNKNOWN_END

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        if prefix := self._prefix.match(line):
            return self._read_rank(prefix[1], line[prefix.end() :], prefix[2])
        if match := self._exit_message.match(line):
            self._exits.append((int(match[1]), int(match[2])))
            if self._held and self._held[0] == match[1]:
                (_, text), self._held = self._held, None
                return self._read_message(
                    text.replace(UNKNOWN_END, describe_end(wait_status(int(match[2]))))
                )
        if match := self._first_exit_message.match(line):
            known = [code for _, code in self._exits if code != self._ssh_failure_code]
            code = int(match[1])
            self.code = known[0] if code == self._ssh_failure_code and known else code
            return None
        if self._own_message.match(line) or line.startswith("  ") or not line:
            return None
        return line, "stdout"

    def _read_rank(self, rank: str, text: str, stream: str) -> tuple[str, str] | None:
        if stream == "stdout":
            return (text, stream) if rank == "0" else None
        if self._noise.match(text):
            return None
        if text.startswith("run_train: "):
            if UNKNOWN_END in text and text.startswith(f"run_train: rank {rank} "):
                # Hold the message until horovodrun prints the exit code of this rank.
                self._held = rank, text
                return None
            return self._read_message(text)
        if self._crash.match(text) or rank in self._crash_lines:
            self._crash_lines.setdefault(rank, []).append(text)
            return None
        return text, stream

    def _read_message(self, text: str) -> tuple[str, str] | None:
        names_rank = bool(self._message.match(text))
        if names_rank and any(map(text.__contains__, self._doubtful)):
            self._doubtful_message = text
            return None
        self._has_message, self._names_rank = True, self._names_rank or names_rank
        return self._with_crash_lines(text), "stderr"

    def rest(self) -> tuple[str, str] | None:
        if self._names_rank:
            return None
        text = self._held[1] if self._held else self._doubtful_message
        if text or not self._has_message:
            text = self._name_first(text)
        if text:
            return self._with_crash_lines(text), "stderr"
        lines = [line for rank in self._crash_lines.values() for line in rank]
        return ("\n".join(lines), "stderr") if lines else None

    def _name_first(self, text: str) -> str:
        """Return a message about the rank that ended first, if a signal ended it; else ``text``."""
        rank, code = self._exits[0] if self._exits else (0, 0)
        status = wait_status(code)
        # A status below 256 is the number of a signal.
        if status in STATUSES_WITHOUT_MESSAGE or status > 255:
            return text
        state = describe_end(status)
        if text.startswith(f"run_train: rank {rank} ") and state in text:
            return text
        return f"run_train: {end_message(str(rank), state, self._hosts[rank])}"

    def _with_crash_lines(self, text: str) -> str:
        """Put the crash lines of a rank before the message that names this rank."""
        named = self._message.match(text)
        return "\n".join([*(self._crash_lines.pop(named[1], []) if named else []), text])

# SPDX-License-Identifier: Apache-2.0
"""The process beside a rank that keeps its output and ends it when its launcher is gone.

    python launch/ranks/companion.py PID STDOUT STDERR CONTROL CHAIN

launch/ranks/output.py starts it.

A process of its own, since a rank may hang inside a library, and its last words must be kept when
it is killed.  The rank writes to two pipes; whatever comes is appended to the log and passed on to
where the rank's output would have gone.  Whoever reads there may be slow, stop reading or go: the
rank never waits for it.  Standard library only.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.ranks.lifeline import UNREAD, Chain, Lifeline, hangs_up, start_time

LOG = "train.log"
LAUNCHERS_ENCODING = "RANK_LAUNCHERS_ENCODING"
"""Variable with the encoding of the launcher's output, where the rank has changed its own."""
POLL_S = 0.25  # between two looks at the launcher
STOP_S = 3.5  # from SIGTERM to SIGKILL for a rank whose launcher is gone: no rank is left after 5 s
LAST_WORDS_S = 5.0  # for a slow reader to take what is left when the rank has ended
MOST_BYTES = 1 << 20  # that wait for a slow reader
LONGEST_LINE = 1 << 16


class Log:
    """The file that keeps the output: a temporary one until the run has a folder.

    Parameters
    ----------
    rank
        Lines of all ranks but the first carry its number.
    """

    def __init__(self, rank: int):
        self._mark = f"[{rank}] ".encode() if rank else b""
        self._partial = {"stdout": b"", "stderr": b""}
        self._kept = False
        self.trouble = ""
        """Why the last line could not be written, "" if it could."""
        try:
            self._file, self._path = tempfile.mkstemp(prefix="face-train-", suffix=".log")
        except OSError as error:
            self._file, self._path, self.trouble = -1, "", str(error.strerror)

    def write(self, stream: str, data: bytes) -> None:
        """Add a piece of a stream; whole lines are written, so that streams do not mix in one."""
        lines = (self._partial[stream] + data).split(b"\n")
        self._partial[stream] = lines.pop()
        if len(self._partial[stream]) > LONGEST_LINE:
            lines.append(self._partial[stream])
            self._partial[stream] = b""
        self._add(b"".join(self._mark + line + b"\n" for line in lines))

    def keep_in(self, folder: str) -> None:
        """Move what there is to the end of the log in a run folder, and go on there."""
        try:
            place = os.path.join(folder, LOG)
            file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self.trouble = str(error.strerror)
            return
        before, self._file, self.trouble = self._file, file, ""
        if before >= 0:
            os.lseek(before, 0, os.SEEK_SET)
            while piece := os.read(before, 1 << 16):
                self._add(piece)
            os.close(before)
            if self.trouble:  # the temporary log stays
                return
            os.unlink(self._path)
        self._path, self._kept = place, True

    def close(self, keep: bool) -> None:
        """End the last lines; remove a temporary log unless it is the only place of the output."""
        for stream, rest in self._partial.items():
            if rest:
                self.write(stream, b"\n")
        if not self._kept and self._path and not keep:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _add(self, data: bytes) -> None:
        if not data or self._file < 0:
            return
        try:
            _write_all(self._file, data)
            self.trouble = ""
        except OSError as error:  # a full disk: what comes later may fit again
            self.trouble = str(error.strerror)


class Outlet:
    """Passes bytes on to a descriptor in a thread of its own, which alone waits for the reader.

    Parameters
    ----------
    descriptor
        Where the output goes.
    encoding
        Of a launcher that decodes UTF-8 and writes in this encoding: what that lacks is escaped,
        since the launcher would end there.  "" passes bytes on as they are.
    """

    def __init__(self, descriptor: int, encoding: str):
        self._descriptor, self._encoding = descriptor, encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._pieces: deque[bytes] = deque()
        self._waiting, self._dropped = 0, 0
        self._changed = threading.Condition()
        self._ending = False
        self.fault = 0
        """errno of the write that failed; nothing is passed on after it."""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, data: bytes, last: bool = False) -> None:
        """Have bytes passed on; they are dropped where too many wait."""
        if self._encoding:
            text = self._decoder.decode(data, final=last)
            data = text.encode(self._encoding, "backslashreplace").decode(self._encoding).encode()
        with self._changed:
            if self._waiting + len(data) > MOST_BYTES:
                self._dropped += len(data)
                return
            if self._dropped:
                data = (
                    f"[{self._dropped} bytes of output are not shown: they were not read in time; "
                    f"{LOG} has them]\n"
                ).encode() + data
                self._dropped = 0
            self._pieces.append(data)
            self._waiting += len(data)
            self._changed.notify()

    def finish(self, until: float) -> None:
        """Wait until all is passed on, or for the time of the monotonic clock."""
        self.put(b"", last=True)
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._ending)
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
            if not self.fault:
                try:
                    _write_all(self._descriptor, piece)
                except OSError as error:
                    self.fault = error.errno or errno.EIO
            with self._changed:
                self._waiting -= len(piece)


class Companion:
    """Beside one rank until that has ended.

    Parameters
    ----------
    rank
        Process of the rank, the parent of this one.
    stdout, stderr
        Pipes that the rank writes to.
    control
        Pipe on which the rank says where its log belongs: ``FOLDER NUL``.
    chain
        What the rank's life hangs on.
    """

    def __init__(self, rank: int, stdout: int, stderr: int, control: int, chain: Chain):
        self._rank, self._started, self._control = rank, start_time(rank), control
        launched = "HOROVOD_RANK" in os.environ
        encoding = os.environ.get(LAUNCHERS_ENCODING) or sys.stdout.encoding if launched else ""
        self._pipes = {stdout: "stdout", stderr: "stderr"}
        self._outlets = {"stdout": Outlet(1, encoding), "stderr": Outlet(2, encoding)}
        self._log = Log(int(os.environ.get("HOROVOD_RANK", "0")))
        self._lifeline = Lifeline(chain, os.environ)
        self._said_trouble = False
        self._asked = b""
        self._kill_at: float | None = None

    def run(self) -> None:
        """Pass output on until the rank has ended or has taken its output back."""
        poll = select.poll()
        for descriptor in (*self._pipes, self._control):
            poll.register(descriptor, select.POLLIN)
        open_pipes = set(self._pipes)
        look_at = 0.0
        while open_pipes:
            ready = poll.poll(POLL_S * 1000)
            for descriptor, _ in ready:
                data = os.read(descriptor, 1 << 16)
                if descriptor == self._control:
                    if not data:  # the rank has ended: what it wrote is in the pipes by now
                        self._drain(open_pipes)
                        open_pipes.clear()
                    else:
                        self._obey(data)
                elif data:
                    self._take(self._pipes[descriptor], data)
                else:
                    open_pipes.discard(descriptor)
                    poll.unregister(descriptor)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + POLL_S
                self._look()
                if start_time(self._rank) != self._started:  # a process of it may have the pipes
                    self._drain(open_pipes)
                    open_pipes.clear()
        until = time.monotonic() + LAST_WORDS_S
        for outlet in self._outlets.values():
            outlet.finish(until)
        self._log.close(keep=any(outlet.fault for outlet in self._outlets.values()))

    def _take(self, stream: str, data: bytes) -> None:
        self._log.write(stream, data)
        self._outlets[stream].put(data)
        self._say_trouble()

    def _say_trouble(self) -> None:
        if self._log.trouble and not self._said_trouble:
            self._said_trouble = True
            text = f"run_train: {LOG} cannot be written, got {self._log.trouble}; make room\n"
            self._outlets["stderr"].put(text.encode())

    def _drain(self, pipes: set[int]) -> None:
        for descriptor in pipes:
            os.set_blocking(descriptor, False)
            with contextlib.suppress(BlockingIOError):  # a process of the rank may still have it
                while data := os.read(descriptor, 1 << 16):
                    self._take(self._pipes[descriptor], data)

    def _obey(self, data: bytes) -> None:
        *folders, self._asked = (self._asked + data).split(b"\0")
        for folder in folders:
            self._log.keep_in(os.fsdecode(folder))
            self._say_trouble()

    def _look(self) -> None:
        """Ask the rank to stop once its launcher is gone; kill it where it does not."""
        if self._kill_at is None:
            gone = self._lifeline.lost()
            # A closed pipe is noticed by whoever writes first.
            closed = self._outlets["stdout"].fault == errno.EPIPE
            if not gone and closed and hangs_up():
                gone = UNREAD
            if gone:
                self._log.write("stderr", f"run_train: asked to stop: {gone}\n".encode())
                self._kill_at = time.monotonic() + STOP_S
                self._signal(signal.SIGTERM)
        elif time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if start_time(self._rank) == self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rank, number)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody has made the reader's end so
            select.select([], [descriptor], [])


def main(argv: list[str]) -> int:
    """Run beside the rank that the arguments name."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are the rank's business
    if hangs_up():
        signal.signal(signal.SIGHUP, lambda *_: None)  # not ignored: that would say nohup
    rank, stdout, stderr, control = map(int, argv[:4])
    Companion(rank, stdout, stderr, control, Chain.parse(argv[4])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

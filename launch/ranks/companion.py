# SPDX-License-Identifier: Apache-2.0
"""Companion process: logs the output of a rank, and stops the rank when the launcher ends.

    python launch/ranks/companion.py PID STDOUT STDERR CONTROL CHAIN

launch/ranks/output.py starts the companion.  It is a separate process, because a rank may hang
inside a library, and because the last output of a killed rank must reach the log.  The rank writes
to two pipes.  The companion appends their data to train.log and forwards the data to the original
output of the rank.  The reader of that output may be slow or gone, but the rank never waits for the
reader.

The module uses the standard library only, because it runs without site-packages.
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

from launch.ranks.lifeline import (
    OUTPUT_CLOSED,
    Chain,
    ExitStatus,
    Lifeline,
    obeys_hangup,
    read_start_time,
)
from launch.ranks.roll_call import report_end

LOG = "train.log"
LAUNCHER_ENCODING_VARIABLE = "RANK_LAUNCHERS_ENCODING"
"""Environment variable with the encoding of the launcher's output.

A rank sets the variable when it switches its own encoding to UTF-8."""
POLL_S = 0.25
"""Seconds between two checks of the launcher."""
STOP_S = 3.5
"""Seconds from SIGTERM to SIGKILL.  With this value a rank ends within 5 s after its launcher."""
FLUSH_TIMEOUT_S = 5.0
"""Seconds that a slow reader gets to read the last output of an ended rank."""
MAX_PENDING_BYTES = 1 << 20
"""Maximum amount of output that waits for a slow reader; further output is dropped."""
MAX_LINE_BYTES = 1 << 16
READ_BYTES = 1 << 16


class Log:
    """Log file of a rank: a temporary file until the run has a folder.

    Parameters
    ----------
    rank
        Number of the rank.  Each line of a rank above 0 starts with this number.
    """

    def __init__(self, rank: int):
        self._prefix = f"[{rank}] ".encode() if rank else b""
        self._partial = {"stdout": b"", "stderr": b""}
        self._in_run_folder = False
        self.error = ""
        """Reason why the last write failed; "" if the last write succeeded."""
        try:
            self._file, self._path = tempfile.mkstemp(prefix="face-train-", suffix=".log")
        except OSError as error:
            self._file, self._path, self.error = -1, "", str(error.strerror)

    def write(self, stream: str, data: bytes) -> None:
        """Append data of a stream ("stdout" or "stderr") to the log.

        Only complete lines are written, so that lines of the two streams do not mix.
        """
        lines = (self._partial[stream] + data).split(b"\n")
        self._partial[stream] = lines.pop()
        if len(self._partial[stream]) > MAX_LINE_BYTES:
            lines.append(self._partial[stream])
            self._partial[stream] = b""
        self._append(b"".join(self._prefix + line + b"\n" for line in lines))

    def move_to(self, folder: str) -> None:
        """Append the temporary log to the log of a run folder, and write later output there."""
        try:
            path = os.path.join(folder, LOG)
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self.error = str(error.strerror)
            return
        temporary, self._file, self.error = self._file, file, ""
        if temporary >= 0:
            os.lseek(temporary, 0, os.SEEK_SET)
            while data := os.read(temporary, READ_BYTES):
                self._append(data)
            os.close(temporary)
            if self.error:  # the copy is incomplete: keep the temporary log
                return
            os.unlink(self._path)
        self._path, self._in_run_folder = path, True

    def close(self, keep: bool) -> None:
        """Write the unfinished last line of each stream; delete a temporary log unless ``keep``."""
        for stream, rest in self._partial.items():
            if rest:
                self.write(stream, b"\n")
        if not self._in_run_folder and self._path and not keep:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _append(self, data: bytes) -> None:
        if not data or self._file < 0:
            return
        try:
            _write_all(self._file, data)
            self.error = ""
        except OSError as error:  # for example a full disk; the next write may succeed
            self.error = str(error.strerror)


class Forwarder:
    """Thread that writes data to a file descriptor, so that only this thread waits for the reader.

    Parameters
    ----------
    descriptor
        File descriptor of the original output.
    encoding
        Encoding of the launcher's output.  Characters outside it are escaped, because horovodrun
        would fail on them.  "" forwards the bytes unchanged.
    """

    def __init__(self, descriptor: int, encoding: str):
        self._descriptor, self._encoding = descriptor, encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._pieces: deque[bytes] = deque()
        self._pending, self._dropped = 0, 0
        self._changed = threading.Condition()
        self._finishing = False
        self.write_errno = 0
        """errno of the first failed write, after which all data is dropped; 0 if none failed."""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, data: bytes, last: bool = False) -> None:
        """Queue data for the thread; drop data that would exceed MAX_PENDING_BYTES in the queue."""
        if self._encoding:
            text = self._decoder.decode(data, final=last)
            data = text.encode(self._encoding, "backslashreplace").decode(self._encoding).encode()
        with self._changed:
            if self._pending + len(data) > MAX_PENDING_BYTES:
                self._dropped += len(data)
                return
            if self._dropped:
                data = (
                    f"[{self._dropped} bytes of output are missing here, because the reader was "
                    f"too slow; {LOG} contains them]\n"
                ).encode() + data
                self._dropped = 0
            self._pieces.append(data)
            self._pending += len(data)
            self._changed.notify()

    def finish(self, until: float) -> None:
        """Wait until all data is written, but no longer than ``until`` on the monotonic clock."""
        self.put(b"", last=True)
        with self._changed:
            self._finishing = True
            self._changed.notify()
        self._thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._finishing)
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
            if not self.write_errno:
                try:
                    _write_all(self._descriptor, piece)
                except OSError as error:
                    self.write_errno = error.errno or errno.EIO
            with self._changed:
                self._pending -= len(piece)


class Companion:
    """Main loop of the companion, which ends when the rank has ended.

    Parameters
    ----------
    rank
        Process id of the rank, the parent of this process.
    stdout, stderr
        File descriptors of the pipes that the rank writes to.
    control
        File descriptor of the pipe on which the rank sends the path of its run folder and a NUL.
    chain
        Processes from the parent of the rank up to the launcher.
    """

    def __init__(self, rank: int, stdout: int, stderr: int, control: int, chain: Chain):
        self._rank, self._started, self._control = rank, read_start_time(rank), control
        launched = "HOROVOD_RANK" in os.environ
        encoding = (
            os.environ.get(LAUNCHER_ENCODING_VARIABLE) or sys.stdout.encoding if launched else ""
        )
        self._pipes = {stdout: "stdout", stderr: "stderr"}
        self._forwarders = {"stdout": Forwarder(1, encoding), "stderr": Forwarder(2, encoding)}
        self._log = Log(int(os.environ.get("HOROVOD_RANK", "0")))
        self._lifeline = Lifeline(chain, os.environ)
        self._error_reported = False
        self._partial_path = b""
        self._kill_at: float | None = None
        self._exit_status = ExitStatus(rank)

    def run(self) -> None:
        """Log and forward the output until the rank has ended."""
        poll = select.poll()
        for descriptor in (*self._pipes, self._control):
            poll.register(descriptor, select.POLLIN)
        open_pipes = set(self._pipes)
        next_check = 0.0
        has_ended = False
        # Do not end when only the two output pipes have closed: the kernel closes the files of a
        # killed rank one after the other, so the control pipe may close later.
        while not has_ended:
            ready = poll.poll(POLL_S * 1000)
            for descriptor, _ in ready:
                data = os.read(descriptor, READ_BYTES)
                if descriptor == self._control:
                    if data:
                        self._read_folders(data)
                    else:
                        has_ended = True
                elif data:
                    self._handle(self._pipes[descriptor], data)
                else:
                    open_pipes.discard(descriptor)
                    poll.unregister(descriptor)
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + POLL_S
                self._check_launcher()
                # Check the process too: children of an ended rank may hold the pipes open.
                has_ended = has_ended or not self._is_running()
        status = self._exit_status.read()
        self._drain(open_pipes)  # Read the last output of the rank.
        self._report_end(status)
        until = time.monotonic() + FLUSH_TIMEOUT_S
        for forwarder in self._forwarders.values():
            forwarder.finish(until)
        self._log.close(keep=any(forwarder.write_errno for forwarder in self._forwarders.values()))

    def _handle(self, stream: str, data: bytes) -> None:
        self._log.write(stream, data)
        self._forwarders[stream].put(data)
        self._report_error()

    def _report_error(self) -> None:
        if self._log.error and not self._error_reported:
            self._error_reported = True
            text = f"run_train: {LOG} cannot be written, got {self._log.error}; free disk space\n"
            self._forwarders["stderr"].put(text.encode())

    def _report_end(self, status: int | None) -> None:
        # _kill_at is set if the launcher has ended.  Its rendezvous server has then ended too, and
        # the log already contains the reason.
        if self._kill_at is None and (message := report_end(status, os.environ)):
            self._handle("stderr", f"run_train: {message}\n".encode())

    def _drain(self, pipes: set[int]) -> None:
        for descriptor in pipes:
            os.set_blocking(descriptor, False)
            with contextlib.suppress(BlockingIOError):  # a child of the rank may hold the pipe open
                while data := os.read(descriptor, READ_BYTES):
                    self._handle(self._pipes[descriptor], data)

    def _read_folders(self, data: bytes) -> None:
        *folders, self._partial_path = (self._partial_path + data).split(b"\0")
        for folder in folders:
            self._log.move_to(os.fsdecode(folder))
            self._report_error()

    def _check_launcher(self) -> None:
        """Send SIGTERM to the rank if its launcher has ended, and SIGKILL STOP_S seconds later."""
        if self._kill_at is None:
            reason = self._lifeline.loss_reason()
            # A failed write is the only sign that the reader of this output has closed its pipe.
            closed = self._forwarders["stdout"].write_errno == errno.EPIPE
            if not reason and closed and obeys_hangup():
                reason = OUTPUT_CLOSED
            # The shell that started the rank ends with the rank.  So ask for the rank after the
            # launcher: a rank that has ended was not stopped because of its launcher.
            if reason and self._is_running():
                self._log.write("stderr", f"run_train: asked to stop: {reason}\n".encode())
                self._kill_at = time.monotonic() + STOP_S
                self._signal(signal.SIGTERM)
        elif time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)

    def _is_running(self) -> bool:
        return bool(self._started) and read_start_time(self._rank) == self._started

    def _signal(self, number: int) -> None:
        if self._is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rank, number)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another process set O_NONBLOCK
            select.select([], [descriptor], [])


def main(argv: list[str]) -> int:
    """Run the companion process on the command-line arguments PID STDOUT STDERR CONTROL CHAIN.

    PID is the process id of the rank; the parameters of `Companion` explain the others.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the rank handles these signals
    if obeys_hangup():
        # Do not use SIG_IGN here: obeys_hangup would mistake SIG_IGN for the effect of nohup.
        signal.signal(signal.SIGHUP, lambda *_: None)
    rank, stdout, stderr, control = map(int, argv[:4])
    Companion(rank, stdout, stderr, control, Chain.parse(argv[4])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

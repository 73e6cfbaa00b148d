# SPDX-License-Identifier: Apache-2.0
"""Show how many images a command has embedded: a bar on a terminal, otherwise lines of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

SECONDS_PER_LINE = 10.0


class Progress:
    """Progress on stderr; a context manager that removes its bar at the end.

    A terminal shows a bar.  Other output, such as a log file, gets a line every 10 seconds, so a
    command that ends sooner writes no line.

    Parameters
    ----------
    stream
        Output; None for stderr.
    clock
        Function that returns a time in seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._last_line_s = clock()
        self._bar: tqdm | None = None
        self._name = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` images of the set ``name`` are embedded."""
        if not self._stream.isatty():
            self._write_line(name, done, total)
            return
        if name != self._name:
            self._close_bar()
        if self._bar is None:
            # mininterval=0 draws the bar at every call.  Calls are rare enough: one per batch, and
            # a batch takes milliseconds or longer.
            self._bar = tqdm(
                desc=name,
                total=total,
                file=self._stream,
                unit="image",
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
            )
            self._name = name
        self._bar.update(done - self._bar.n)
        if done == total:
            self._close_bar()

    def _write_line(self, name: str, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last_line_s >= SECONDS_PER_LINE:
            self._last_line_s = now
            self._stream.write(f"evaluation: {name}: embedded {done} of {total} images\n")
            self._stream.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

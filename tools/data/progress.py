# SPDX-License-Identifier: Apache-2.0
"""Show the progress of a command on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

_LINE_INTERVAL_S = 60.0


class Progress:
    """Progress on stderr: a bar on a terminal, else one line per minute.

    A new value of the argument ``what``, which names the phase, begins a new bar.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last_s = time.monotonic()
        self._what = ""
        self._bar: Any = None
        tqdm.monitor_interval = 0  # no monitor thread, because a process with threads must not fork

    def __call__(self, what: str, done: int, count: int) -> None:
        """Show that ``done`` of ``count`` images are finished in the phase ``what``."""
        if self._terminal:
            if what != self._what:
                self.clear()
                self._what = what
                self._bar = tqdm(total=count, desc=what, unit=" images", initial=done, leave=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_s >= _LINE_INTERVAL_S:
            self._last_s = now
            print(f"{what} {done:,} of {count:,} images", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._what = None, ""

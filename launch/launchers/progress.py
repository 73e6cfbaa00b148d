# SPDX-License-Identifier: Apache-2.0
"""Progress bar that a launcher draws on the terminal."""

from __future__ import annotations

import re
import threading
from typing import TextIO

from tqdm import tqdm

REFRESH_INTERVAL_S = 0.5
_STATE_FORMAT = "{desc}, {elapsed}"  # format until the number of steps is known
_FULL_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n}/{total} steps, {elapsed}{postfix}"
_STEP = re.compile(
    r"step (\d+)/(\d+)  .*?loss (\S+)  .*?(\S+) images/s  data wait (\S+) %  ETA (\S+)"
)
# Pattern of the line that begins a state, and name of the state.  The first match applies.
_STATES = {
    r"step \d+/\d+  ": "training",
    r"verifying ": "verifying",
    r"run .+?  ranks ": "starting",
    r"finished: ": "finished",
}


class ProgressBar:
    """Progress bar on a terminal, updated from the lines that the ranks print.

    The bar shows the state of the run: "opening" until the ranks have opened the data, then
    "starting" until the first log line, "training", "verifying" and "finished".  The elapsed time
    advances in every state.  The rate and the remaining time are those of the last log line, so
    steps before a resume do not count.  The lines themselves appear above the bar.

    Parameters
    ----------
    stream
        The terminal.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._bar = tqdm(
            file=stream,
            desc="opening",
            dynamic_ncols=True,
            bar_format=_STATE_FORMAT,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._thread.start()

    def write_line(self, text: str) -> None:
        """Print an output line of the ranks above the bar, and update the bar."""
        tqdm.write(text, file=self._stream)
        with self._bar.get_lock():
            for pattern, state in _STATES.items():
                if re.match(pattern, text):
                    self._bar.set_description_str(state, refresh=False)
                    self._bar.set_postfix_str("", refresh=False)
                    break
            if step := _STEP.match(text):
                done, total, loss, rate, wait, remaining = step.groups()
                self._bar.bar_format = _FULL_FORMAT
                self._bar.n, self._bar.total = int(done), int(total)
                self._bar.set_postfix_str(
                    f"loss {loss}, {rate} images/s, data wait {wait} %, ETA {remaining}",
                    refresh=False,
                )
        self._bar.refresh()

    def close(self) -> None:
        """Stop updating the bar and close the bar."""
        self._stop.set()
        self._thread.join()
        self._bar.close()

    def _refresh(self) -> None:
        """Redraw the bar regularly, so that the elapsed time shows that the run is alive."""
        while not self._stop.wait(REFRESH_INTERVAL_S):
            self._bar.refresh()

# SPDX-License-Identifier: Apache-2.0
"""Progress bar that a launcher draws on the terminal."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import TextIO

from tqdm import tqdm


class ProgressBar:
    """Progress bar on a terminal, updated from the file metrics.jsonl of the run.

    Parameters
    ----------
    stream
        The terminal.
    root
        Project folder.  The ranks print the path of their run folder relative to this folder.
    """

    def __init__(self, stream: TextIO, root: Path):
        self._bar: tqdm | None = None
        self._stream = stream
        self._root = root
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def write_line(self, text: str) -> None:
        """Print an output line of the ranks above the bar.

        Once the bar exists, a line such as ``step 20/1000`` is not printed, but sets the total
        number of steps of the bar.
        """
        step = re.match(r"step (\d+)/(\d+)", text)
        if step and self._bar is not None:
            self._bar.total = int(step[2])
            return
        tqdm.write(text, file=self._stream)
        run = re.match(r"run (.+?)  ranks", text)
        if run:
            self._bar = tqdm(file=self._stream, unit="step", dynamic_ncols=True)
            self._thread = threading.Thread(
                target=self._follow, args=(self._root / run[1] / "metrics.jsonl",), daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop updating the bar and close the bar."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def _follow(self, path: Path) -> None:
        assert self._bar is not None
        while not self._stop.wait(0.5):
            try:
                last = json.loads(path.read_text().splitlines()[-1])
            except (OSError, ValueError, IndexError):
                continue  # the file does not exist yet, or its last line is incomplete
            if "loss" not in last:
                continue
            self._bar.n = last["step"]
            self._bar.set_postfix_str(
                f"loss {last['loss']:.3f}, {last['images_per_second']:.0f} images/s, "
                f"data wait {100 * last['data_wait_fraction']:.0f} %"
            )

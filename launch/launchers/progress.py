# SPDX-License-Identifier: Apache-2.0
"""A progress bar for the terminal of a launcher."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import TextIO

from tqdm import tqdm


class Bar:
    """A progress bar fed from metrics.jsonl of the run that the output names."""

    def __init__(self, stream: TextIO, root: Path):
        self._bar: tqdm | None = None
        self._stream = stream
        self._root = root  # what the run's path is relative to
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def line(self, text: str) -> None:
        """Print a line above the bar; learn from it where the run is and how long it lasts."""
        step = re.match(r"step (\d+)/(\d+)", text)
        if step and self._bar is not None:
            self._bar.total = int(step[2])
            return  # the bar shows it
        tqdm.write(text, file=self._stream)
        run = re.match(r"run (.+?)  ranks", text)
        if run:
            self._bar = tqdm(file=self._stream, unit="step", dynamic_ncols=True)
            self._thread = threading.Thread(
                target=self._follow, args=(self._root / run[1] / "metrics.jsonl",), daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Take the bar away."""
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
                continue  # not there yet, or its last line is just being written
            if "loss" not in last:
                continue
            self._bar.n = last["step"]
            self._bar.set_postfix_str(
                f"loss {last['loss']:.3f}, {last['images_per_second']:.0f} images/s, "
                f"data wait {100 * last['data_wait_fraction']:.0f} %"
            )

# SPDX-License-Identifier: Apache-2.0
"""Output of a run: lines on stdout, metrics.jsonl, TensorBoard events and summary.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomic_write import atomic_write


class RunLog:
    """Log of rank 0; on other ranks the methods do nothing.

    Parameters
    ----------
    folder
        The run folder; None on ranks other than 0.
    step
        Step that the run resumes from; later lines of metrics.jsonl are removed.
    """

    def __init__(self, folder: Path | None, step: int = 0):
        self._folder = folder
        self.notices: list[str] = []
        """Lines that ``notice`` has printed."""
        if folder is None:
            return
        self._path = folder / "metrics.jsonl"
        _remove_lines_after(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", step)

    def say(self, text: str) -> None:
        """Print one line."""
        if self._folder is not None:
            print(text, flush=True)

    def notice(self, text: str) -> None:
        """Print one line and add it to ``notices``, which go into summary.json."""
        self.notices.append(text)
        self.say(text)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to the TensorBoard events.

        Raises
        ------
        OSError
            If the line cannot be written, for example to a full disk.
        """
        if self._folder is None:
            return
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        self._board.write(values)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json."""
        if self._folder is not None:
            with atomic_write(self._folder / "summary.json", "w") as file:
                file.write(json.dumps(values, indent=1) + "\n")

    def close(self) -> None:
        """Close the files."""
        if self._folder is not None:
            self._file.close()
            self._board.close()


class _Board:
    """TensorBoard event file that the calling thread writes.

    The SummaryWriter of tensorboardX writes in a thread of its own.  A full disk ends that thread;
    then its queue fills up and the caller blocks forever.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # TensorBoard hides the events of later steps that a killed run has written.
        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(start)

    def write(self, values: Mapping[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for key, value in values.items():
            if isinstance(value, int | float) and key not in ("step", "epoch"):
                event = Event(wall_time=time.time(), step=values["step"])
                event.summary.CopyFrom(scalar(key, value))
                self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def progress_line(values: Mapping[str, Any], end_steps: int) -> str:
    """Format the stdout line of one log interval."""
    seconds = values["eta_s"]
    eta = f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return (
        f"step {values['step']}/{end_steps}  epoch {values['epoch']}  loss {values['loss']:.4f}  "
        f"cosine {values['cosine']:.3f}  lr {values['lr']:.5g}  "
        f"{values['images_per_second']:.1f} images/s  "
        f"data wait {100 * values['data_wait_fraction']:.1f} %  ETA {eta}"
    )


def verification_line(name: str, result: Mapping[str, Any]) -> str:
    """Format the stdout line of one verification set."""
    tar = result["tar_at_far_1e-3"]
    return (
        f"verify {name}: accuracy {result['accuracy']:.4f} +- {result['accuracy_std']:.4f}  "
        f"TAR@FAR=1e-3 {'too few pairs' if tar is None else f'{tar:.4f}'}  "
        f"xnorm {result['xnorm']:.2f}  pairs {result['pairs']}"
    )


def _remove_lines_after(path: Path, step: int) -> None:
    """Remove the lines after a step, because the resumed run logs these steps again.

    A kill may have truncated the last line; it is removed if it is damaged.  Damaged lines before
    it stay.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            keep = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            keep = number < len(lines)
        if keep:
            kept.append(line.decode("utf-8", errors="replace") + "\n")
    with atomic_write(path, "w") as file:
        file.writelines(kept)
    os.sync()

# SPDX-License-Identifier: Apache-2.0
"""What a run tells: plain lines from rank 0, metrics.jsonl, tensorboard and summary.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomic_write import atomic_write


class RunLog:
    """Writes for rank 0; on the other ranks every call does nothing.

    Parameters
    ----------
    folder
        The run folder; None on ranks that do not write.
    step
        Step that the run goes on from: later lines of metrics.jsonl are dropped.
    """

    def __init__(self, folder: Path | None, step: int = 0):
        self._folder = folder
        self.notices: list[str] = []
        """What ``notice`` was called with."""
        if folder is None:
            return
        self._path = folder / "metrics.jsonl"
        _drop_after(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", step)

    def say(self, text: str) -> None:
        """Print one plain line."""
        if self._folder is not None:
            print(text, flush=True)

    def notice(self, text: str) -> None:
        """Print one plain line that belongs into summary.json as well."""
        self.notices.append(text)
        self.say(text)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl and its numbers to tensorboard.

        Raises
        ------
        OSError
            If the disk is full.
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
    """Tensorboard's event file, written at once.

    tensorboardX's SummaryWriter writes in a thread of its own, which a full disk ends: after that
    its queue fills and the caller waits for ever.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # What a killed run wrote after its checkpoint is hidden.
        begin = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(begin)

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
    """Return the plain line of one log interval."""
    seconds = values["eta_s"]
    eta = f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return (
        f"step {values['step']}/{end_steps}  epoch {values['epoch']}  loss {values['loss']:.4f}  "
        f"cosine {values['cosine']:.3f}  lr {values['lr']:.5g}  "
        f"{values['images_per_second']:.1f} images/s  "
        f"data wait {100 * values['data_wait_fraction']:.1f} %  ETA {eta}"
    )


def verification_line(name: str, result: Mapping[str, Any]) -> str:
    """Return the plain line of one verification set."""
    tar = result["tar_at_far_1e-3"]
    return (
        f"verify {name}: accuracy {result['accuracy']:.4f} +- {result['accuracy_std']:.4f}  "
        f"TAR@FAR=1e-3 {'too few pairs' if tar is None else f'{tar:.4f}'}  "
        f"xnorm {result['xnorm']:.2f}  pairs {result['pairs']}"
    )


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to a step: what a killed run logged after its checkpoint comes again.

    The last line may have been cut short by the kill.  A damaged line before it stays as it is.
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

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
    """Log of a run; only rank 0 writes, and on other ranks the methods write nothing.

    Parameters
    ----------
    folder
        The run folder; None on ranks other than 0.
    step
        Step that the run resumes from, 0 for a new run.  The lines of metrics.jsonl about later
        steps are removed.
    verifies_first
        Whether the run verifies the net of ``step`` before its first step; the lines of
        metrics.jsonl about the verification of this step are then removed too.
    """

    def __init__(self, folder: Path | None, step: int = 0, verifies_first: bool = False):
        self.folder = self._folder = folder
        self.notices: list[str] = []
        """Lines that were passed to ``notice``."""
        if folder is None:
            return
        self._path = folder / "metrics.jsonl"
        _remove_lines_after(self._path, step, verifies_first)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", step)

    def say(self, text: str) -> None:
        """Print one line on stdout."""
        if self._folder is not None:
            print(text, flush=True)

    def notice(self, text: str) -> None:
        """Print a line on stdout, and append the line to the ``notices`` of summary.json."""
        self.notices.append(text)
        self.say(text)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Append ``values`` to metrics.jsonl as one line, and to the TensorBoard events.

        Raises
        ------
        OSError
            If the line cannot be written, for example because the disk is full.
        """
        if self._folder is None:
            return
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        self._board.write(values)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write ``values`` to summary.json."""
        if self._folder is not None:
            with atomic_write(self._folder / "summary.json", "w") as file:
                file.write(json.dumps(values, indent=1) + "\n")

    def close(self) -> None:
        """Close metrics.jsonl and the TensorBoard event file."""
        if self._folder is not None:
            self._file.close()
            self._board.close()


class _Board:
    """TensorBoard event file, written in the calling thread.

    The SummaryWriter of tensorboardX writes in a separate thread instead.  A full disk ends that
    thread.  Then the queue of events fills up, and the caller blocks forever.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # This event makes TensorBoard hide the later steps that a killed process of the run logged.
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
    """Return the line that reports one log interval on stdout."""
    seconds = values["eta_s"]
    eta = f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    accuracy = values.get("training_accuracy")
    accuracy_text = "" if accuracy is None else f"training accuracy {accuracy:.3f}  "
    return (
        f"step {values['step']}/{end_steps}  epoch {values['epoch']}  loss {values['loss']:.4f}  "
        f"cosine {values['cosine']:.3f}  {accuracy_text}lr {values['lr']:.5g}  "
        f"{values['images_per_second']:.1f} images/s  "
        f"data wait {100 * values['data_wait_fraction']:.1f} %  ETA {eta}"
    )


def verification_line(name: str, result: Mapping[str, Any]) -> str:
    """Return the line that reports the result of one verification set on stdout."""
    tar = result["tar_at_far_1e-3"]
    return (
        f"verify {name}: accuracy {result['accuracy']:.4f} +- {result['accuracy_std']:.4f}  "
        f"TAR@FAR=1e-3 {'too few pairs' if tar is None else f'{tar:.4f}'}  "
        f"xnorm {result['xnorm']:.2f}  pairs {result['pairs']}"
    )


def closing_line(
    folder: Path | None, steps: int, values: Mapping[str, Any], next_command: str = ""
) -> str:
    """Return the last line of a finished run on stdout.

    Parameters
    ----------
    folder
        The run folder.
    steps
        Number of steps of the run.
    values
        ``final_loss``, ``verification`` and ``warning`` of the run.
    next_command
        Command line that the user can run next; "" for none.
    """
    parts = [f"finished: step {steps}"]
    if values["final_loss"] is not None:
        parts.append(f"loss {values['final_loss']:.4f}")
    for name, result in values["verification"].items():
        threshold = result.get("best_threshold")
        at = "" if threshold is None else f" at squared distance {threshold:.2f}"
        parts.append(f"{name} accuracy {result['accuracy']:.4f}{at}")
    parts.append(f"folder {folder}")
    if values["warning"]:
        parts.append(values["warning"].partition(";")[0])  # the log has the whole warning
    if next_command:
        parts.append(f"next: {next_command}")
    return "  ".join(parts)


def _remove_lines_after(path: Path, step: int, verifies_first: bool) -> None:
    """Remove the lines of metrics.jsonl after ``step``: a resumed run logs those steps again.

    ``verifies_first`` states whether the run also logs the verification of ``step`` again.

    A damaged last line, which a kill may have truncated, is removed too.  Damaged lines before the
    last line stay.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            keep = values["step"] <= step
            if verifies_first and values["step"] == step:
                keep = not any(key.startswith("verification/") for key in values)
        except (ValueError, KeyError, TypeError, RecursionError):
            keep = number < len(lines)
        if keep:
            kept.append(line.decode("utf-8", errors="replace") + "\n")
    with atomic_write(path, "w") as file:
        file.writelines(kept)
    os.sync()

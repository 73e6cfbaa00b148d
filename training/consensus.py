# SPDX-License-Identifier: Apache-2.0
"""Consensus of the ranks: exchange errors and stop requests, so that all exit at the same step.

A rank with an error still takes part in every collective operation until the next exchange.  In the
exchange all ranks receive the error, and all ranks raise the same exception.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from training.faults import Stopped, TrainingError

if TYPE_CHECKING:
    from launch.ranks.comm import Comm

GRACE_S = 4.0
"""Seconds after SIGTERM in which a checkpoint must be saved; horovodrun kills ranks after 5 s."""


class Kind(str, Enum):
    """Kinds of errors that end a run."""

    DATA = "data"
    """A batch cannot be read."""
    DISK = "disk"
    """A file of the run folder cannot be written."""
    NOT_FINITE = "not finite"
    """A loss, a weight or an embedding is NaN or infinite."""


@dataclass(frozen=True)
class Trouble:
    """Error of one rank that ends the run.

    ``text`` is the message.  ``step`` is the first step with a non-finite value, or 0 for errors of
    data and disk.
    """

    kind: Kind
    text: str
    step: int = 0


class Consensus:
    """Errors and stop requests of this rank, and their exchange with the other ranks.

    Parameters
    ----------
    saved_step
        Step of the checkpoint that the run resumes from; None for a new run.
    """

    def __init__(self, comm: Comm, saved_step: int | None = None):
        self._comm = comm
        self.saved_step = saved_step
        """Step of the last saved checkpoint, None before the first one; messages name this step."""
        self.trouble: Trouble | None = None
        """Error of this rank, or None; the next exchange sends the error to the other ranks."""
        self.stop_agreed = False
        """True if at the last exchange at least one rank had a stop request."""
        self._requested_at: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Treat the signals SIGTERM, SIGINT and SIGHUP as stop requests during a with block."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup SIGHUP stays ignored
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self.ask_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def ask_stop(self, number: int, frame: Any) -> None:
        """Handle a signal: record a stop request and the time of the first request."""
        if self._requested_at is None:  # the grace period starts at the first signal
            self._requested_at = time.perf_counter()

    def report(self, trouble: Trouble) -> None:
        """Record an error of this rank, unless an earlier error is recorded."""
        if self.trouble is None:
            self.trouble = trouble

    def exchange(self, **numbers: float) -> dict[str, np.ndarray]:
        """Exchange named numbers, errors and stop requests with all ranks.

        All ranks call this method together and pass the same names.

        Outputs
        -------
        Dict from each name to the numbers of all ranks, float64 (ranks,), rank 0 first.

        Raises
        ------
        TrainingError
            On all ranks, if any rank has an error.
        """
        flags = [self.trouble is not None, self._requested_at is not None]
        rows = self._comm.gather(np.array([[*numbers.values(), *flags]], dtype=np.float64))
        *columns, troubled, stopping = rows.T
        if troubled.any():
            self.settle(self.trouble)
        self.stop_agreed = bool(stopping.any())
        return dict(zip(numbers, columns, strict=True))

    def settle(self, trouble: Trouble | None) -> None:
        """Exchange errors; raise TrainingError on all ranks if any rank passes an error."""
        found = self._comm.gather_json(trouble and asdict(trouble))
        troubles = [
            (rank, Trouble(**{**fields, "kind": Kind(fields["kind"])}))
            for rank, fields in enumerate(found)
            if fields is not None
        ]
        if troubles:
            self.leave(troubles)

    def leave(self, troubles: list[tuple[int, Trouble]]) -> NoReturn:
        """Raise TrainingError for one of several errors, given as pairs (rank, trouble).

        Errors of data and disk have priority over non-finite values, because the user can repair
        data and disk.  Among errors of equal priority, the earliest step wins, and at equal steps
        the lowest rank.
        """
        rank, first = min(troubles, key=lambda t: (t[1].kind is Kind.NOT_FINITE, t[1].step))
        where = f"rank {rank}: " if self._comm.size > 1 else ""
        if first.kind is not Kind.NOT_FINITE:
            raise TrainingError(f"{where}{first.text}", usage=True)
        saved = (
            "no checkpoint has been saved yet"
            if self.saved_step is None
            else f"the last good checkpoint (step {self.saved_step}) is kept"
        )
        raise TrainingError(
            f"{where}{first.text}; {saved}; start a new "
            "run (run.resume=false) with at least one change: a lower optim.lr, a longer "
            "optim.warmup or train.margin_warmup, gradient clipping (optim.clip_norm), or trained "
            "weights (train.pretrained)"
        )

    def stop(self, step: int, step_seconds: float, save: Callable[[], None]) -> NoReturn:
        """Save a checkpoint if the grace period leaves enough time; then raise Stopped.

        Parameters
        ----------
        step, step_seconds
            Number of finished steps, and duration of one step in seconds.
        save
            Function that saves a checkpoint and sets ``saved_step``; all ranks call the function.
        """
        now = time.perf_counter()
        remaining = GRACE_S - (now - (now if self._requested_at is None else self._requested_at))
        # Horovod: all ranks must decide alike whether they save.
        fits = self._comm.gather(np.array([[remaining]])).min() > max(1.0, 2 * step_seconds)
        if fits and self.saved_step != step:
            save()
        if self.saved_step is None:
            raise Stopped(
                f"stopped at step {step} without a checkpoint; the same command starts at step 0"
            )
        raise Stopped(
            f"stopped at step {step}, saved at step {self.saved_step}; the same command resumes at "
            f"step {self.saved_step}"
        )

# SPDX-License-Identifier: Apache-2.0
"""Consensus of the ranks: they exchange errors and stop requests, and leave at the same step.

A rank with an error takes part in every collective until the next exchange.  There all ranks
receive the error and raise the same exception.
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
"""Time limit of a checkpoint after SIGTERM; horovodrun kills the ranks after 5 s."""


class Kind(str, Enum):
    """Kinds of trouble."""

    DATA = "data"
    """A batch cannot be read."""
    DISK = "disk"
    """A file of the run folder cannot be written."""
    NOT_FINITE = "not finite"
    """A loss, a weight or an embedding is NaN or infinite."""


@dataclass(frozen=True)
class Trouble:
    """Error of one rank that ends the run; ``step`` is the first step with a non-finite value."""

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
        """Step of the last checkpoint, for messages."""
        self.trouble: Trouble | None = None
        """Error of this rank; the next exchange sends it to the other ranks."""
        self.stop_agreed = False
        """True if the last exchange found a rank with a stop request."""
        self._requested_at: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Treat SIGTERM, SIGINT and SIGHUP as stop requests in a with block."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores SIGHUP
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self.ask_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def ask_stop(self, number: int, frame: Any) -> None:
        """Record a stop request; this is a signal handler."""
        if self._requested_at is None:  # the grace period starts at the first request
            self._requested_at = time.perf_counter()

    def report(self, trouble: Trouble) -> None:
        """Record the first error of this rank."""
        if self.trouble is None:
            self.trouble = trouble

    def exchange(self, **numbers: float) -> dict[str, np.ndarray]:
        """Exchange named numbers, errors and stop requests with all ranks.

        All ranks pass the same names.

        Outputs
        -------
        For each name the numbers of all ranks, (ranks,) float64.

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
        """Raise TrainingError on all ranks if any rank passes an error."""
        found = self._comm.gather_json(trouble and asdict(trouble))
        troubles = [
            (rank, Trouble(**{**fields, "kind": Kind(fields["kind"])}))
            for rank, fields in enumerate(found)
            if fields is not None
        ]
        if troubles:
            self.leave(troubles)

    def leave(self, troubles: list[tuple[int, Trouble]]) -> NoReturn:
        """Raise TrainingError for one of (rank, trouble).

        Errors of data and disk come before non-finite values, because the user can repair them.
        Among equals the earliest step comes first, then the lowest rank.
        """
        rank, first = min(troubles, key=lambda t: (t[1].kind is Kind.NOT_FINITE, t[1].step))
        where = f"rank {rank}: " if self._comm.size > 1 else ""
        if first.kind is not Kind.NOT_FINITE:
            raise TrainingError(f"{where}{first.text}", usage=True)
        saved = "none yet" if self.saved_step is None else f"step {self.saved_step}"
        raise TrainingError(
            f"{where}{first.text}; the last good checkpoint ({saved}) is kept, start again "
            "(run.resume=false) with a lower optim.lr, a longer optim.warmup or "
            "train.margin_warmup, or with optim.clip_norm"
        )

    def stop(self, step: int, step_seconds: float, save: Callable[[], None]) -> NoReturn:
        """Save a checkpoint if the grace period allows it, and raise Stopped.

        Parameters
        ----------
        step, step_seconds
            Number of finished steps, and seconds per step.
        save
            Function that all ranks call to save a checkpoint; it sets ``saved_step``.
        """
        now = time.perf_counter()
        remaining = GRACE_S - (now - (now if self._requested_at is None else self._requested_at))
        # Horovod: all ranks must make the same decision.
        fits = self._comm.gather(np.array([[remaining]])).min() > max(1.0, 2 * step_seconds)
        if fits and self.saved_step != step:
            save()
        raise Stopped(
            f"stopped at step {step}, saved at step {self.saved_step or 0}; the same command "
            "resumes from there"
        )

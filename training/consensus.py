# SPDX-License-Identifier: Apache-2.0
"""Consensus of the ranks: they exchange troubles and requests to stop, and leave at the same step.

A rank in trouble keeps taking part in every collective until the next exchange; there all ranks
learn of it and raise the same error.
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
"""horovodrun kills 5 s after SIGTERM: a checkpoint is saved on SIGTERM only if it fits this."""


class Kind(str, Enum):
    """Kinds of trouble."""

    DATA = "data"
    """A batch cannot be had."""
    DISK = "disk"
    """A file of the run cannot be written."""
    NOT_FINITE = "not finite"
    """A loss, a weight or an embedding is NaN or infinite."""


@dataclass(frozen=True)
class Trouble:
    """A reason of one rank to end the run; ``step`` is where a value ceased to be finite."""

    kind: Kind
    text: str
    step: int = 0


class Consensus:
    """Troubles and requests to stop of this rank, and what the ranks make of them together.

    Parameters
    ----------
    saved_step
        Step of the checkpoint that the run resumes from, None without one.
    """

    def __init__(self, comm: Comm, saved_step: int | None = None):
        self._comm = comm
        self.saved_step = saved_step
        """Step of the last checkpoint, for the sentences."""
        self.trouble: Trouble | None = None
        """Of this rank, told to the others at the next exchange."""
        self.stop_agreed = False
        """Whether some rank had been asked to stop at the last exchange."""
        self._asked_at: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP as requests to stop."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup asks for
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self.ask_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def ask_stop(self, number: int, frame: Any) -> None:
        """Note a request to stop; handles signals."""
        if self._asked_at is None:  # the grace period counts from the first request
            self._asked_at = time.perf_counter()

    def report(self, trouble: Trouble) -> None:
        """Note a trouble of this rank, unless there is one already."""
        if self.trouble is None:
            self.trouble = trouble

    def exchange(self, **numbers: float) -> dict[str, np.ndarray]:
        """Exchange named numbers, troubles and requests; leave on all ranks if there is a trouble.

        All ranks call it with the same names.

        Outputs
        -------
        By name float64 (ranks,), rank 0 first.
        """
        flags = [self.trouble is not None, self._asked_at is not None]
        rows = self._comm.gather(np.array([[*numbers.values(), *flags]], dtype=np.float64))
        *columns, troubled, asked = rows.T
        if troubled.any():
            self.settle(self.trouble)
        self.stop_agreed = bool(asked.any())
        return dict(zip(numbers, columns, strict=True))

    def settle(self, trouble: Trouble | None) -> None:
        """Leave on all ranks if any of them passes a trouble."""
        found = self._comm.gather_json(trouble and asdict(trouble))
        troubles = [
            (rank, Trouble(**{**fields, "kind": Kind(fields["kind"])}))
            for rank, fields in enumerate(found)
            if fields is not None
        ]
        if troubles:
            self.leave(troubles)

    def leave(self, troubles: list[tuple[int, Trouble]]) -> NoReturn:
        """Raise TrainingError for one of (rank, trouble): the earliest one, then the lowest rank.

        What needs other settings comes after what the user can repair.
        """
        rank, first = min(troubles, key=lambda t: (t[1].kind is Kind.NOT_FINITE, t[1].step))
        where = f"rank {rank}: " if self._comm.size > 1 else ""
        if first.kind is not Kind.NOT_FINITE:
            raise TrainingError(f"{where}{first.text}", usage=True)
        saved = "none yet" if self.saved_step is None else f"step {self.saved_step}"
        raise TrainingError(
            f"{where}{first.text}; the last good checkpoint ({saved}) is kept, begin anew "
            "(run.resume=false) with a lower optim.lr, a longer optim.warmup or "
            "train.margin_warmup, or with optim.clip_norm"
        )

    def stop(self, step: int, step_seconds: float, save: Callable[[], None]) -> NoReturn:
        """Save if all ranks have the time, and raise Stopped.

        Parameters
        ----------
        step, step_seconds
            Steps done, and seconds that one takes.
        save
            Saves a checkpoint on all ranks together and sets ``saved_step``.
        """
        now = time.perf_counter()
        remaining = GRACE_S - (now - (now if self._asked_at is None else self._asked_at))
        # Horovod: every rank must decide alike.
        fits = self._comm.gather(np.array([[remaining]])).min() > max(1.0, 2 * step_seconds)
        if fits and self.saved_step != step:
            save()
        raise Stopped(
            f"stopped at step {step}, saved at step {self.saved_step or 0}; the same command goes "
            "on from there"
        )

# SPDX-License-Identifier: Apache-2.0
"""Search for the shortest time per batch at which a device hardly waits for its data loader."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MAX_WAITING_FRACTION = 0.03  # The device must wait for batches for less than 3 % of its time.
PRECISION_FRACTION = 0.02
# The longest tested interval is the first guess times this factor.  A loader without prefetching
# needs a factor of 33: the device waits while each batch is prepared, and only an interval of about
# 33 times this wait makes the wait less than 3 % of the time.
MAX_INTERVAL_FACTOR = 128.0
NO_PREFETCH_WAIT_FACTOR = 0.4
MAX_TRIALS = 24  # Without this limit, noise could keep a search from ending.
MAX_GROWTH_FACTOR = 6.0


@dataclass(frozen=True)
class Trial:
    """Measurement of a simulated device that computes for a fixed time on each batch.

    Parameters
    ----------
    interval
        Seconds that the device computes on each batch.
    waited, elapsed
        Seconds that the device waited for batches, and seconds in total.
    batches
        Number of batches taken.
    """

    interval: float
    waited: float
    elapsed: float
    batches: int

    @property
    def waiting_fraction(self) -> float:
        """Return the fraction of the time in which the device waited for batches."""
        return self.waited / self.elapsed

    @property
    def batch_s(self) -> float:
        """Return the mean seconds from one batch to the next."""
        return self.elapsed / self.batches


def search(
    trial: Callable[[float], Trial],
    guess: float,
    precision: float = PRECISION_FRACTION,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Trial | None:
    """Find the shortest interval at which the device hardly waits for batches.

    The interval is the time that the device computes on each batch.  An interval passes if the
    device waits for less than MAX_WAITING_FRACTION of the time; otherwise it fails.  The search
    starts at the interval ``guess``.  It lengthens or shortens the interval in growing steps until
    one interval has passed and another one has failed.  Then it bisects between these two, with the
    geometric mean, until their gap is small enough.

    Parameters
    ----------
    trial
        Function that measures the device at a given interval in seconds.
    guess
        First interval, in seconds.
    precision
        Largest allowed relative gap between the interval found and the lower bound of the interval
        sought.
    out_of_time
        Function that returns True when the time is up.  Then the search ends with the best interval
        found so far.  If no interval has passed yet, the search continues until one passes.

    Returns
    -------
    Trial or None
        Trial of the interval found; None if the device waits too long even at an interval of
        MAX_INTERVAL_FACTOR times the guess.

    Notes
    -----
    A longer interval never makes the wait for a batch longer.  So each trial gives a bound: the
    interval at which the measured wait would be exactly MAX_WAITING_FRACTION of the time.  This is
    an upper bound of the interval sought if the trial failed, a lower bound if the trial passed.
    For a loader without prefetch, the bound equals the interval sought.

    Noise from other processes can make a trial fail but cannot make it pass.  So the lower bound
    may be wrong.  Therefore the last trial checks the lower bound.  If the lower bound is an
    interval that failed, the last trial repeats it; otherwise, it tests an interval just below the
    bound.  If this trial fails, the search ends.  If it passes, the search drops the bound and
    continues.
    """
    state = _Search(guess, precision)
    for _ in range(MAX_TRIALS):
        if state.best and out_of_time():
            break
        state.add(trial(state.interval))
        if state.finished:
            break
    return state.best


class _Search:
    """State of a search; `interval` is the next interval to test, in seconds per batch."""

    def __init__(self, guess: float, precision: float) -> None:
        self.interval, self.finished = guess, False
        self.best: Trial | None = None  # trial at the shortest interval that passed
        self._guess, self._precision = guess, precision
        self._longest = guess * MAX_INTERVAL_FACTOR
        self._low, self._high = 0.0, math.inf  # bounds of the interval sought, in seconds
        self._longest_failed = 0.0
        self._step = self._first_step = 1 + 2 * precision
        self._checks_low = False

    def add(self, found: Trial) -> None:
        """Record the trial at the current interval, and choose the interval of the next trial."""
        wait = found.waited / found.batches
        bound = wait * (1 - MAX_WAITING_FRACTION) / MAX_WAITING_FRACTION
        self._narrow(found, bound)
        if self._high <= self._low * (1 + self._precision):
            if self._checks_low and not _passes(found):
                self.finished = True
                return
            between = self._low / (1 + self._precision / 2)
            self.interval = between if self._low > self._longest_failed else self._longest_failed
            self._checks_low = True
            return
        self._checks_low = False
        self.interval = self._next_interval(wait, bound)
        self._step = min(2.0, self._step**2)
        too_long = self._longest_failed >= self._longest
        self.finished = too_long or self.interval < self._guess / MAX_INTERVAL_FACTOR

    def _narrow(self, found: Trial, bound: float) -> None:
        if not _passes(found):
            self._longest_failed = self.interval
            self._low = max(self._low, self._longest_failed)
            return
        if self._checks_low:
            # The trial that checks the lower bound has passed.  So noise made an earlier trial
            # fail, and the lower bound is wrong: drop this bound.
            self._low, self._longest_failed, self._step = 0.0, 0.0, self._first_step
        self._high, self.best, self._low = self.interval, found, max(self._low, bound)

    def _next_interval(self, wait: float, bound: float) -> float:
        if self.best and self._longest_failed:
            return math.sqrt(self._low * self._high)
        if self.best:
            return max(math.sqrt(self._low * self._high), self.interval / self._step)
        if wait > NO_PREFETCH_WAIT_FACTOR * self._guess:
            growth = MAX_GROWTH_FACTOR * self.interval
            return min(self._longest, bound * (1 + self._precision / 2), growth)
        return min(self._longest, self.interval * self._step)


def _passes(found: Trial) -> bool:
    return found.waiting_fraction < MAX_WAITING_FRACTION

# SPDX-License-Identifier: Apache-2.0
"""Search for the shortest batch interval at which a device hardly waits for its loader."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MAX_WAITING_FRACTION = 0.03  # of the device's time
PRECISION_FRACTION = 0.02  # largest gap between the interval found and a shorter one that fails
MAX_INTERVAL_FACTOR = 128.0  # times the first interval; a loader without prefetch needs 33
NO_PREFETCH_WAIT_FACTOR = 0.4  # times the first interval; a longer wait means no prefetch
MAX_PROBES = 24  # per search; noise can keep a search from converging
MAX_GROWTH_FACTOR = 6.0  # from one interval to the next; the first guess can be far too short


@dataclass(frozen=True)
class Probe:
    """Measurement of a simulated device that takes batches at a fixed interval.

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
        """Return the fraction of the time that the device waited."""
        return self.waited / self.elapsed

    @property
    def batch_s(self) -> float:
        """Return the mean seconds from one batch to the next."""
        return self.elapsed / self.batches


def search(
    probe: Callable[[float], Probe],
    guess: float,
    precision: float = PRECISION_FRACTION,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Probe | None:
    """Find the shortest interval at which the device waits less than MAX_WAITING_FRACTION.

    From the guess, the search moves outwards in growing steps until one interval passes and one
    fails.  Then it bisects (geometric mean) until they are close.

    Parameters
    ----------
    probe
        Measures the device at an interval in seconds.
    guess
        First interval, in seconds.
    precision
        Largest gap between the interval found and a shorter one that fails, as a fraction.
    out_of_time
        Returns True to end the search with the best interval so far, if there is one.

    Returns
    -------
    Probe or None
        Probe of the interval found; None if the device waits too long even at
        MAX_INTERVAL_FACTOR times the guess.

    Notes
    -----
    A longer interval never makes the wait for a batch longer.  So the interval at which the
    measured wait would be exactly MAX_WAITING_FRACTION of the time bounds the answer: from above
    if the probe failed, from below if it passed.  For a loader without prefetch it is the answer.

    Noise from other processes can fail a probe but cannot pass one.  So the search ends with a
    probe of the lower bound and repeats that probe once if it fails.
    """
    state = _Search(guess, precision)
    for _ in range(MAX_PROBES):
        if state.best and out_of_time():
            break
        state.add(probe(state.interval))
        if state.finished:
            break
    return state.best


class _Search:
    """State of a search: `interval` is the next one to probe, in seconds."""

    def __init__(self, guess: float, precision: float) -> None:
        self.interval, self.finished = guess, False
        self.best: Probe | None = None  # probe of the shortest interval that passed
        self._guess, self._precision = guess, precision
        self._longest = guess * MAX_INTERVAL_FACTOR
        self._low, self._high = 0.0, math.inf  # bounds of the answer
        self._failed = 0.0  # longest interval that failed
        self._step = self._first_step = 1 + 2 * precision
        self._checks_bound = False  # the interval is the lower bound

    def add(self, found: Probe) -> None:
        """Record the probe of the current interval and choose the next interval."""
        wait = found.waited / found.batches
        bound = wait * (1 - MAX_WAITING_FRACTION) / MAX_WAITING_FRACTION
        self._narrow(found, bound)
        if self._high <= self._low * (1 + self._precision):
            if self._checks_bound and not _passes(found):
                self.finished = True
                return
            between = self._low / (1 + self._precision / 2)
            self.interval = between if self._low > self._failed else self._failed
            self._checks_bound = True
            return
        self._checks_bound = False
        self.interval = self._next_interval(wait, bound)
        self._step = min(2.0, self._step**2)
        too_long = self._failed >= self._longest
        self.finished = too_long or self.interval < self._guess / MAX_INTERVAL_FACTOR

    def _narrow(self, found: Probe, bound: float) -> None:
        if not _passes(found):
            self._failed = self.interval
            self._low = max(self._low, self._failed)
            return
        if self._checks_bound:  # noise had failed the probe that gave this bound
            self._low, self._failed, self._step = 0.0, 0.0, self._first_step
        self._high, self.best, self._low = self.interval, found, max(self._low, bound)

    def _next_interval(self, wait: float, bound: float) -> float:
        if self.best and self._failed:
            return math.sqrt(self._low * self._high)
        if self.best:
            return max(math.sqrt(self._low * self._high), self.interval / self._step)
        if wait > NO_PREFETCH_WAIT_FACTOR * self._guess:
            growth = MAX_GROWTH_FACTOR * self.interval
            return min(self._longest, bound * (1 + self._precision / 2), growth)
        return min(self._longest, self.interval * self._step)


def _passes(found: Probe) -> bool:
    return found.waiting_fraction < MAX_WAITING_FRACTION

# SPDX-License-Identifier: Apache-2.0
"""The search for the shortest interval at which a device hardly waits for its batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

SHARE = 0.03  # of the device's time: what it may wait
PRECISION = 0.02  # the next shorter interval that was tried and fails is at most so much shorter
SPAN = 128.0  # times the first interval, at most: a loader without prefetch needs 33
NO_PREFETCH = 0.4  # of the first interval is waited: the loader makes a batch when asked
MOST = 24  # probes of a search: where noise never lets it end
JUMP = 6.0  # times the interval is tried next at most: where own rate was taken in a bad moment


@dataclass(frozen=True)
class Probe:
    """What the stub of a device saw.

    Parameters
    ----------
    interval
        Seconds that it computes with a batch.
    waited, elapsed
        Seconds that it waited for batches, and in all.
    batches
        How many it took.
    """

    interval: float
    waited: float
    elapsed: float
    batches: int

    @property
    def share(self) -> float:
        """Return the share of the time that was spent waiting."""
        return self.waited / self.elapsed

    @property
    def batch_s(self) -> float:
        """Return the seconds from batch to batch."""
        return self.elapsed / self.batches


def search(
    probe: Callable[[float], Probe],
    guess: float,
    precision: float = PRECISION,
    late: Callable[[], bool] = lambda: False,
) -> Probe | None:
    """Return the probe of the shortest interval at which the device waits less than SHARE.

    Parameters
    ----------
    probe
        Lets the device take batches with an interval between them, in seconds.
    guess
        The first interval, in seconds; from there it goes outwards in growing steps until one
        passes and one fails, then the (geometric) middle is tried until they are close.
    precision
        How close: what fails is at most so much shorter, as a share of it.
    late
        Whether to be content with what was found so far, if anything was.

    Returns
    -------
    Probe or None
        None if the device waits at SPAN times the first interval still.

    Notes
    -----
    With more time between batches none is waited for longer.  So the interval at which a wait would
    be SHARE of the time is a bound for what is sought: an upper one if the probe failed, a lower
    one if it passed.  With a loader that prefetches nothing it is what is sought.

    The lower bound is tried at the end, again if it failed once, because a neighbour's noise can
    fail a probe and pass none.
    """
    slowest, first_step = guess * SPAN, 1 + 2 * precision
    low, high, failed, best = 0.0, math.inf, 0.0, None  # failed: the longest interval that did
    interval, step, again = guess, first_step, False
    for _ in range(MOST):
        if best and late():
            break
        found = probe(interval)
        wait = found.waited / found.batches
        balance = wait * (1 - SHARE) / SHARE
        if found.share < SHARE:
            if again:  # the bound was one of a bad moment
                low, failed, step = 0.0, 0.0, first_step
            high, best, low = interval, found, max(low, balance)
        else:
            failed = interval
            low = max(low, failed)
        if high <= low * (1 + precision):
            if again and found.share >= SHARE:
                break
            interval, again = low / (1 + precision / 2) if low > failed else failed, True
            continue
        again = False
        if best and failed:
            interval = math.sqrt(low * high)
        elif best:
            interval = max(math.sqrt(low * high), interval / step)
        elif wait > NO_PREFETCH * guess:
            interval = min(slowest, balance * (1 + precision / 2), interval * JUMP)
        else:
            interval = min(slowest, interval * step)
        step = min(2.0, step**2)
        if failed >= slowest or interval < guess / SPAN:
            break
    return best

# SPDX-License-Identifier: Apache-2.0
"""Run a command on several ranks: horovodrun -np N python -m evaluation ..."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from launch.ranks.comm import Comm

T = TypeVar("T")


class Ranks:
    """The ranks of a command; without a launcher, one rank that never waits for others.

    Parameters
    ----------
    comm
        Communication between ranks; None for one rank.
    """

    def __init__(self, comm: Comm | None = None) -> None:
        self.comm = comm
        self.rank, self.size = (comm.rank, comm.size) if comm else (0, 1)
        self.local_rank, self.local_size = (comm.local_rank, comm.local_size) if comm else (0, 1)

    def agree(self, work: Callable[[], T]) -> T:
        """Return the result of ``work`` on this rank; if one rank fails, all ranks fail."""
        if self.comm is None:
            return work()
        from launch.ranks.agreement import agree

        return agree(self.comm, work)

    def require_equal(self, value: object, what: str) -> None:
        """Make all ranks fail if a value, serializable as JSON, differs between ranks."""
        if self.comm is not None:
            from launch.ranks.agreement import require_equal

            require_equal(self.comm, value, what)


def run_on_ranks(work: Callable[[Ranks], None]) -> int:
    """Call ``work`` with the ranks that a launcher has started; return the exit code.

    Without a launcher, ``work`` runs on one rank, and its exceptions are not caught.
    """
    if int(os.environ.get("HOROVOD_SIZE", "1")) == 1:
        work(Ranks())
        return 0
    from launch.ranks.threads import share_cores

    share_cores()  # sets OMP_NUM_THREADS before launch.ranks.comm imports MXNet, which reads it
    from launch.ranks.agreement import exit_alone, exit_together
    from launch.ranks.comm import NoConnection, connect

    try:
        comm = connect()
    except NoConnection as error:
        return exit_alone(error, print_error)
    return exit_together(comm, lambda: work(Ranks(comm)), print_error)


def print_error(text: str) -> None:
    """Print the error message of a command on standard error."""
    print(f"error: {text}", file=sys.stderr, flush=True)

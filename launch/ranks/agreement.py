# SPDX-License-Identifier: Apache-2.0
"""Agreement between ranks: if one rank fails, all ranks exit together with the same message."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from launch.ranks.comm import Comm, NoConnection

T = TypeVar("T")
MESSAGE_WAIT_S = 2.0
"""Seconds that the other ranks of a host wait while local rank 0 prints the error message."""


class Leaving(Exception):
    """Exception that ends the run; all ranks raise it together, with the same message."""

    exit_code = 1


class Refused(Leaving):
    """Exception for a configuration or data that at least one rank cannot use."""

    exit_code = 2


def exit_together(
    comm: Comm, work: Callable[[], None], report: Callable[[str], None] | None = None
) -> int:
    """Call ``work``, disconnect from the other ranks and return the exit code.

    The exit code is 0 if ``work`` returns.  If ``work`` raises `Leaving`, rank 0 prints the message
    of the exception, and the exit code is that of the exception.  If the connection to another rank
    is lost, one of the remaining ranks prints which rank is missing, and the exit code is 1.
    ``report`` prints error messages; None stands for `print_error`.
    """
    report = report or print_error
    code = 0
    try:
        work()
    except Leaving as leaving:
        code = leaving.exit_code
        if comm.rank == 0:
            report(str(leaving))
    except RuntimeError as error:
        if not comm.has_lost(error):
            raise
        # Horovod: no collective works any more, so the ranks find the missing ones without Horovod.
        comm.name_lost_ranks(report)
        return 1
    # Horovod: the launcher kills all ranks when one exits with an error.  All ranks therefore wait
    # here until rank 0 has printed its message.
    comm.gather_json("done")
    comm.close()
    return code


def exit_alone(error: NoConnection, report: Callable[[str], None] | None = None) -> int:
    """Print why this rank cannot connect to the other ranks; return the exit code.

    Only local rank 0 of each host prints.  ``report`` prints the error message; None stands for
    `print_error`.
    """
    # Horovod: the launcher kills all ranks when one exits with an error, so the other ranks wait
    # until local rank 0 has printed.  Local rank 0 prints on every host, because the error may
    # concern one host only.
    if int(os.environ.get("HOROVOD_LOCAL_RANK", "0")) == 0:
        (report or print_error)(str(error))
    else:
        time.sleep(MESSAGE_WAIT_S)
    return Refused.exit_code


def print_error(text: str) -> None:
    """Print the error message of a failed run on standard error."""
    print(f"run_train: {text}", file=sys.stderr, flush=True)


def agree(comm: Comm, work: Callable[[], T]) -> T:
    """Call ``work`` on every rank; return its result on this rank if no rank fails.

    Raises
    ------
    Refused
        On all ranks, with the same message, if ``work`` fails on any rank.  ValueError and OSError
        count as errors of configuration or data.  Any other exception is a bug, so the rank that
        raises it also prints its traceback.
    """
    result, problem = None, None
    try:
        result = work()
    except (ValueError, OSError) as error:
        problem = str(error)
    except Exception as error:
        if comm.has_lost(error):
            raise
        traceback.print_exc()
        problem = f"internal error {type(error).__name__}: {error}"
    problems = comm.gather_json(problem)
    found = [(rank, text) for rank, text in enumerate(problems) if text is not None]
    if found:
        rank, text = found[0]
        everywhere = all(p == text for p in problems)
        raise Refused(text if everywhere else f"rank {rank}: {text}")
    return result  # type: ignore[return-value]


def require_equal(comm: Comm, value: Any, what: str) -> None:
    """Raise Refused on all ranks if a value differs between ranks.

    Parameters
    ----------
    value
        Value of this rank, serializable as JSON.
    what
        Name of the value for the error message.
    """
    values = comm.gather_json(value)
    for rank, other in enumerate(values):
        if other != values[0]:
            where, here, there = _first_difference(values[0], other, what)
            raise Refused(
                f"{where}: must be equal on all ranks, got {here!r} on rank 0 and {there!r} "
                f"on rank {rank}; use the same files and the same command on every host"
            )


def gather_notices(comm: Comm, notices: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct notices of all ranks; a notice of a rank above 0 names the rank."""
    found: dict[str, str] = {}
    for rank, received in enumerate(comm.gather_json(list(notices))):
        for notice in received:
            found.setdefault(notice, f"rank {rank}: {notice}" if rank else notice)
    return tuple(found.values())


def _first_difference(a: Any, b: Any, where: str) -> tuple[str, Any, Any]:
    """Return the first key at which two nested dicts differ, and both values at that key."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        key = next(key for key in a if a[key] != b[key])
        return _first_difference(a[key], b[key], f"{where}.{key}")
    return where, a, b

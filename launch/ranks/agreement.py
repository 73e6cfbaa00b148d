# SPDX-License-Identifier: Apache-2.0
"""Agreement of the ranks: what one rank rejects all reject, and all leave with one sentence."""

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
OTHER_HOSTS_S = 2.0
"""Seconds that the other ranks of a host wait for the sentence of its first one."""


class Leaving(Exception):
    """A reason to end the run, raised on all ranks alike with one sentence."""

    exit_code = 1


class Refused(Leaving):
    """Configuration or data that some rank cannot use."""

    exit_code = 2


def leaving_together(comm: Comm, work: Callable[[], None]) -> int:
    """Do ``work``, leave the other ranks and return the exit code.

    That is 0, or the one of a Leaving, whose sentence rank 0 prints.
    """
    code = 0
    try:
        work()
    except Leaving as leaving:
        code = leaving.exit_code
        if comm.rank == 0:
            fail(str(leaving))
    # Horovod: the launcher kills the others when one leaves with a code, so rank 0 speaks first.
    comm.gather_json("done")
    comm.close()
    return code


def leaving_alone(error: NoConnection) -> int:
    """Print why this rank has no connection to the others; return the exit code."""
    # Horovod: the launcher kills the others when one leaves with a code, so one of each host goes
    # first: it may be the name of one host alone.
    if int(os.environ.get("HOROVOD_LOCAL_RANK", "0")) == 0:
        fail(str(error))
    else:
        time.sleep(OTHER_HOSTS_S)
    return Refused.exit_code


def fail(text: str) -> None:
    """Print the sentence of a failed run on standard error."""
    print(f"run_train: {text}", file=sys.stderr, flush=True)


def agree(comm: Comm, work: Callable[[], T]) -> T:
    """Do ``work`` on every rank; if any rank fails, raise Refused on all with one sentence.

    Faults of configuration and data are ValueErrors and OSErrors.  Anything else is a bug: its
    traceback is printed by the rank that has it, and the others leave all the same.
    """
    result, problem = None, None
    try:
        result = work()
    except (ValueError, OSError) as error:
        problem = str(error)
    except Exception as error:
        traceback.print_exc()
        problem = f"internal fault {type(error).__name__}: {error}"
    problems = comm.gather_json(problem)
    found = [(rank, text) for rank, text in enumerate(problems) if text is not None]
    if found:
        rank, text = found[0]
        everywhere = all(p == text for p in problems)
        raise Refused(text if everywhere else f"rank {rank}: {text}")
    return result  # type: ignore[return-value]


def require_equal(comm: Comm, value: Any, what: str) -> None:
    """Raise Refused on all ranks if they do not hold the same value (anything JSON can write)."""
    values = comm.gather_json(value)
    for rank, other in enumerate(values):
        if other != values[0]:
            where, here, there = _first_difference(values[0], other, what)
            raise Refused(
                f"{where}: the ranks do not see the same, got {here!r} on rank 0 and {there!r} "
                f"on rank {rank}; give every host the same files and command"
            )


def gather_notices(comm: Comm, notices: Sequence[str]) -> tuple[str, ...]:
    """Return the notices of all ranks, each once; those that rank 0 has not, with their rank."""
    found: dict[str, str] = {}
    for rank, said in enumerate(comm.gather_json(list(notices))):
        for notice in said:
            found.setdefault(notice, f"rank {rank}: {notice}" if rank else notice)
    return tuple(found.values())


def _first_difference(a: Any, b: Any, where: str) -> tuple[str, Any, Any]:
    """Return where two values differ and the two there."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        key = next(key for key in a if a[key] != b[key])
        return _first_difference(a[key], b[key], f"{where}.{key}")
    return where, a, b

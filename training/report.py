# SPDX-License-Identifier: Apache-2.0
"""Print the first lines of a run and write summary.json at its end."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.best_checkpoint import FOLDER, keep_only
from training.faults import Stopped, TrainingError
from training.log import RunLog, closing_line

if TYPE_CHECKING:
    from launch.ranks.comm import Comm
    from training.loop import Loop
    from training.run import Run


def open_log(run: Run, rank: int) -> RunLog:
    """Open the log of a run; only rank 0 writes."""
    return RunLog(run.folder if rank == 0 else None, run.progress.step, run.verifies_first)


def announce(
    log: RunLog,
    run: Run,
    *,
    ranks: Mapping[str, Any],
    data: Mapping[str, Any],
    recipe: Sequence[str],
    notices: Sequence[str],
) -> None:
    """Print the first lines of a run: folder, ranks, data, recipe, resume position and notices.

    Empty notices are skipped.  summary.json repeats the printed notices.
    """
    log.say(f"run {run.folder}  " + "  ".join(f"{key} {value}" for key, value in ranks.items()))
    log.say("  ".join(f"{key} {value}" for key, value in data.items()))
    for line in recipe:
        log.say(line)
    progress = run.progress
    if progress.step:
        log.say(
            f"resumed at step {progress.step}, epoch {progress.epoch}, after {progress.consumed} "
            "images of this epoch"
        )
    for notice in filter(None, notices):
        log.notice(notice)


@contextmanager
def reporting(
    log: RunLog, loop: Loop, comm: Comm, versions: Mapping[str, str], *, next_command: str = ""
) -> Iterator[None]:
    """Write summary.json after the with block, with status "finished", "stopped" or "failed".

    All ranks enter the with block.  After any exception other than TrainingError and Stopped,
    summary.json is not written.

    Parameters
    ----------
    versions
        Versions of the libraries, and choices of the run such as the decoder, for summary.json.
    next_command
        Command line for the user, which the last line of a finished run contains.
    """
    try:
        yield
    except (Stopped, TrainingError) as error:
        status = "stopped" if isinstance(error, Stopped) else "failed"
        _finish(log, loop, comm, versions, status=status, reason=str(error))
        raise
    warning = loop.history.warning
    if warning:
        log.notice(warning)
    if loop.best is not None and log.folder is not None:
        keep_only(log.folder / FOLDER, loop.history.best_step)
    outcome = {"status": "finished"}
    if loop.best is not None and loop.stops_early:
        outcome["reason"] = loop.best.reason
        log.say(outcome["reason"])
    if not _finish(log, loop, comm, versions, **outcome):
        return
    values: dict[str, Any] = {
        "final_loss": loop.totals.final_loss,
        "verification": loop.verification,
    }
    values["warning"] = warning
    log.say(closing_line(log.folder, loop.progress.step, values, next_command))


def _skipped_images(loop: Loop) -> dict[str, Any]:
    """Return the entry of summary.json about bad images; empty if the run does not skip images."""
    if not loop.skips_bad_images:
        return {}
    problems = list(loop.history.skipped.values())
    return {"skipped_images": {"count": len(problems), "images": problems}}


def _finish(
    log: RunLog, loop: Loop, comm: Comm, versions: Mapping[str, str], **outcome: str
) -> bool:
    """Write summary.json and close the log; if the disk is full, print a message, return False."""
    peak_rss_mib = max(comm.gather_json(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    totals = loop.totals
    try:
        log.summary(
            {
                **outcome,
                "steps": loop.progress.step,
                "epochs": loop.epochs,
                "ranks": comm.size,
                "images_per_second": totals.images_per_second,
                "data_wait_fraction": totals.data_wait_fraction,
                "final_loss": totals.final_loss,
                "verification": loop.verification,
                **(loop.best.report(log.folder) if loop.best and log.folder else {}),
                **_skipped_images(loop),
                "peak_rss_mib": peak_rss_mib,
                "notices": log.notices,
                "versions": versions,
            }
        )
        log.close()
    except OSError as error:
        log.say(
            f"summary.json cannot be written, got {error.strerror}; check the disk "
            "space and the permissions of its folder"
        )
        return False
    return True

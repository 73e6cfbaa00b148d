# SPDX-License-Identifier: Apache-2.0
"""Start or resume a run (folder, position, end, schedules), and save its checkpoints."""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import normalization
from assemble.loader import permitted_bad_images
from launch.config.configuration import Config, differences
from launch.environment.provenance import commit, versions
from launch.ranks.agreement import agree
from training import best_checkpoint, schedule
from training.best_checkpoint import BestCheckpoint
from training.best_metric import parse_best_metric
from training.cadence import Cadence, is_due
from training.checkpoint import open_checkpoint, save_checkpoint
from training.history import History
from training.run import Progress, Run
from training.run_folder import RunFolder, choose_run, write_classes, write_config

if TYPE_CHECKING:
    from assemble.inputs import Inputs
    from launch.ranks.comm import Comm
    from training.step import Model


def open_run(config: Config, inputs: Inputs, comm: Comm, at_end: ExitStack) -> Run:
    """Start or resume the run that the configuration describes; all ranks return the same run.

    Rank 0 chooses and locks the run folder.  The lock is released when ``at_end`` is closed.
    """
    notices: tuple[str, ...] = ()

    def choose() -> list[str | None]:
        nonlocal notices
        if comm.rank:
            return []
        chosen = choose_folder(config, inputs, comm.size)
        at_end.callback(chosen.lock.release)
        notices = (*config.notices, *chosen.notices)
        found = chosen.checkpoint
        # The run id is random: it distinguishes shards of different runs even if the run folders
        # have the same name.
        run_id = (found.run_id if found else None) or uuid.uuid4().hex
        fault = ""
        if config.eval.best:
            best = chosen.folder / best_checkpoint.FOLDER
            history = found.state.get("history", {}) if found else {}
            fault = best_checkpoint.restore(best, found.step if found else 0, history)
        return [str(chosen.folder), str(found.folder) if found else None, run_id, fault]

    folder, found, run_id, fault = comm.gather_json(agree(comm, choose))[0]
    checkpoint = agree(comm, lambda: open_checkpoint(Path(found)) if found else None)
    state = checkpoint.state if checkpoint else {}
    global_batch_size = config.data.batch_size * comm.size
    # A resumed run reads the epoch size from its checkpoint: the size depends on the number of
    # ranks, and the run may resume with another number of ranks.
    epoch_images = state.get("epoch_images", inputs.epoch_images)
    # For the same reason, the checkpoint also states the number of images per step.
    step_images = state.get("step_images", global_batch_size)
    end_images = state.get("end_images") or count_run_images(
        config, epoch_images, global_batch_size
    )
    history = History(**state.get("history", {}))
    if fault:
        history.best_value = None
        if not comm.rank:
            notices += (f"{fault}; the next verification counts as the best",)
    step, every = state.get("progress", {}).get("step", 0), config.eval.every_steps
    sizes = {"epoch_images": epoch_images, "run_images": end_images, "step_images": step_images}
    return Run(
        folder=Path(folder),
        checkpoint=checkpoint,
        progress=Progress(**state.get("progress", {})),
        history=history,
        seed=config.run.seed,
        global_batch_size=global_batch_size,
        epoch_images=epoch_images,
        end_images=end_images,
        lr=make_learning_rate(config, sizes),
        margin=make_margin(config, sizes),
        step_images=step_images,
        clip_norm=config.optim.clip_norm,
        permitted_bad_images=permitted_bad_images(config, inputs),
        id=run_id,
        verifies_first=bool(config.eval.best) and is_unverified(step, every, history.verified_step),
        notices=notices,
    )


def is_unverified(step: int, every: int, verified_step: int) -> bool:
    """Return whether a verification is due at ``step`` > 0 and has not been recorded.

    ``every`` is the number of steps between two verifications, 0 for none before the end of the
    run.  ``verified_step`` is the step of the last recorded verification, or 0.
    """
    return step > verified_step and is_due(step, every)


def choose_folder(config: Config, inputs: Inputs, ranks: int) -> RunFolder:
    """Choose and lock the folder of a new or resumed run, and save the configuration there."""
    plain = config.to_dict()
    chosen = choose_run(
        Path(config.run.dir),
        config.run.name,
        resume=config.run.resume,
        config=plain,
        differences=partial(differences, defaults=config.defaults()),
        data=inputs.fingerprint(),
    )
    notes = {"versions": versions(), "commit": commit(), "ranks": ranks}
    write_config(chosen.folder, plain, notes)
    records = inputs.records
    if records and records.origins is not None:
        write_classes(chosen.folder, records.files, records.origins)
    return chosen


def count_run_images(config: Config, epoch_images: int, global_batch_size: int) -> int:
    """Return the number of images after which the run ends.

    This is the lowest of the limits train.epochs, train.max_images and train.max_steps, converted
    to images.  At least one of them must be set, that is, above 0.
    """
    train = config.train
    ends = [train.epochs * epoch_images, train.max_images, train.max_steps * global_batch_size]
    return min(end for end in ends if end)


def make_learning_rate(config: Config, sizes: Mapping[str, int]) -> Any:
    """Return a function that computes the learning rate from the number of images used so far.

    ``sizes`` holds the arguments of `Duration.images`.
    """
    optim = config.optim
    return partial(
        schedule.learning_rate,
        schedule=optim.schedule,
        lr=optim.lr,
        end=sizes["run_images"],
        warmup=optim.warmup.images(**sizes),
        milestones=[m.images(**sizes) for m in optim.milestones],
        decay=optim.decay,
        power=optim.power,
        final_lr=optim.final_lr,
    )


def make_margin(config: Config, sizes: Mapping[str, int]) -> Any:
    """Return a function from the number of images used so far to the fraction of the margin.

    ``sizes`` holds the arguments of `Duration.images`.
    """
    train = config.train
    return partial(
        schedule.margin_fraction,
        start=train.margin_start.images(**sizes),
        warmup=train.margin_warmup.images(**sizes),
    )


def next_command(config: Config, run: Run) -> str:
    """Return the command line that scores the net of a finished run on verification sets."""
    sets = config.eval.sets or ["NAME.bin"]
    command = ["python", "-m", "evaluation", "verify", "--checkpoint", str(run.folder), "--sets"]
    return shlex.join([*command, *sets])


def make_cadence(config: Config) -> Cadence:
    """Return the intervals, in steps, of log lines, of checkpoints and of verifications."""
    train = config.train
    return Cadence(train.log_every, train.checkpoint_every, config.eval.every_steps)


def make_best(
    config: Config, inputs: Inputs, run: Run, save: Callable[[], Any]
) -> BestCheckpoint | None:
    """Return the rule that keeps the best checkpoint; None if ``eval.best`` is empty."""
    if not config.eval.best:
        return None
    metric = parse_best_metric(config.eval.best, list(inputs.sets))
    every, patience = config.eval.every_steps, config.eval.patience
    return BestCheckpoint(metric, run.history, save, every, patience)


class Checkpointer:
    """Writer of the checkpoints of a run."""

    def __init__(self, config: Config, inputs: Inputs, run: Run, model: Model, *, comm: Comm):
        self._run, self._model, self._comm = run, model, comm
        self._keep = config.train.keep_checkpoints
        plain = config.to_dict()
        self._state = {
            "epoch_images": run.epoch_images,
            "end_images": run.end_images,
            "step_images": run.step_images,
            "ranks": comm.size,
            "run": run.id,
            "data": inputs.fingerprint(),
            "meta": {
                "net": plain["net"],
                "head": plain["head"],
                "num_classes": inputs.num_classes,
                "classes": inputs.classes,
                "image_size": list(inputs.image_size),
                "mean": normalization.MEAN,
                "std": normalization.STD,
            },
        }

    def save(self) -> None:
        """Write a periodic checkpoint; raise CheckpointError if writing fails.

        If the head is distributed over the ranks, all ranks call this method together; else only
        rank 0 calls it.
        """
        self._save(self._run.folder / "checkpoints", self._keep)
        if self._comm.rank == 0:
            best = self._run.folder / best_checkpoint.FOLDER
            best_checkpoint.keep_only(best, self._run.history.best_step)

    def save_best(self) -> None:
        """Write the checkpoint of the best verification; raise CheckpointError if writing fails.

        The next `save` removes earlier best checkpoints.  The ranks call this method as they call
        `save`.
        """
        self._save(self._run.folder / best_checkpoint.FOLDER, sys.maxsize)

    def _save(self, folder: Path, keep: int) -> None:
        progress = self._run.progress
        save_checkpoint(
            folder,
            progress.step,
            self._model,
            state={
                "progress": asdict(progress),
                "history": asdict(self._run.history),
                **self._state,
            },
            keep=keep,
            comm=self._comm,
        )

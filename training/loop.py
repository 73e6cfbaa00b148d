# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, logging, checkpoints, verification.

The host runs at most two steps ahead of the device.  Losses stay on the device; the host reads them
every ``log_every`` steps.  At these steps the ranks also exchange errors and stop requests
(training/consensus.py): a damaged image, a non-finite loss, a full disk, SIGTERM.  Until then a
rank with an error repeats its last good batch, so that no other rank waits forever in a collective.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from training.cadence import Cadence, is_due
from training.clock import DeviceClock
from training.consensus import Consensus, Kind, Trouble
from training.faults import TrainingError, one_line
from training.history import exchange_skipped
from training.interval import Interval, Totals
from training.log import RunLog, progress_line, verification_line
from training.model_arrays import shard_of
from training.run import Run, reseed
from training.step import Model, all_finite, measure_accuracy, train_step

if TYPE_CHECKING:
    from launch.ranks.comm import Comm
    from training.best_checkpoint import BestCheckpoint

STATISTICS_SUFFIXES = ("running_mean", "running_var", "moving_mean", "moving_var")
"""Name suffixes of the running statistics of BatchNorm, in our nets and in imported graphs."""

Verify = Callable[[], Mapping[str, Mapping[str, Any]]]


class Loop:
    """Training loop that starts at ``run.progress`` and ends after ``run.end_images`` images.

    Parameters
    ----------
    model
        Initialised net and head, with the trainer of their parameters.
    loader
        Iterator of batches with ``image``, ``label`` and ``after`` (see pipeline/loader.py).
    run
        Constants and progress of the run; the loop updates ``run.progress`` in place.
    save
        Function that writes a checkpoint and raises ValueError on failure.  If the head is
        distributed over the ranks, all ranks call the function together; else only rank 0.
    verify
        Function that scores the net and returns ``{name of the set: result}``.  All ranks call the
        function.  None if there are no verification sets.
    best
        Rule that keeps the best checkpoint and may end the run early; None for no rule.
    """

    def __init__(
        self,
        model: Model,
        loader: Any,
        comm: Comm,
        log: RunLog,
        run: Run,
        *,
        save: Callable[[], Any],
        verify: Verify | None,
        cadence: Cadence,
        best: BestCheckpoint | None = None,
    ):
        self.model, self.loader, self.comm, self.log = model, loader, comm, log
        self.save, self.verify, self.cadence, self.best = save, verify, cadence, best
        self.progress, self.history, self._run = run.progress, run.history, run
        remaining_steps = -(-(run.end_images - run.progress.images) // run.global_batch_size)
        self.end_steps = run.progress.step + remaining_steps
        self.skips_bad_images = run.permitted_bad_images is not None
        self.consensus = Consensus(comm, run.progress.step or None)
        self.totals = Totals()
        self.verification: Mapping[str, Mapping[str, Any]] = {}
        self._batch: Any = None
        self._interval = Interval(time.perf_counter())
        self._issued = deque[mx.nd.NDArray](maxlen=3)
        self._weight = next(
            p
            for block in (model.net, model.head)
            for p in block.collect_params().values()
            if p.grad_req != "null"
        )

    @property
    def epochs(self) -> int:
        """Number of completed epochs.

        The current epoch counts as completed if its remaining images do not fill a batch.
        """
        remaining = self.loader.images_per_epoch - self.progress.consumed
        incomplete = self.progress.consumed > 0 and remaining < self._run.global_batch_size
        return self.progress.epoch + incomplete

    def run(self) -> None:
        """Train and verify until the run ends.

        Raises
        ------
        TrainingError
            If training cannot continue.  All ranks raise it at the same step, with one message.
        Stopped
            After a stop request to any rank.  All ranks raise it at the same step.
        """
        with self.consensus.listening(), closing(DeviceClock()) as clock:
            if self.verify is not None and (self._run.verifies_first or self.is_over):
                # The run that this one resumes may have been killed before this verification.
                self._verify(self.verify)
            if not self.is_over:
                self._train(clock)

    @property
    def is_over(self) -> bool:
        """Whether no step remains: all images are used, or the rule ``best`` ends the run early."""
        return self.progress.images >= self._run.end_images or self.stops_early

    @property
    def stops_early(self) -> bool:
        """Whether the run ends because the verification no longer improves."""
        return self.best is not None and self.best.is_exhausted

    def _train(self, clock: DeviceClock) -> None:
        progress = self.progress
        self._fetch(clock)
        self.consensus.exchange()  # raises TrainingError if a rank has no first batch
        self._stop_if_agreed()
        self._interval = Interval(time.perf_counter(), skipped=self._interval.skipped)
        last = False
        while not last:
            self._step(clock)
            last = progress.images >= self._run.end_images
            if not last:
                self._fetch(clock)
            save, verify, logs = self._due(progress.step, last)
            if logs:
                self._log()
                self._stop_if_agreed()
            pause_start = time.perf_counter()
            if save or verify:
                self._average_statistics()
            if save:
                self._checkpoint()
            if verify:
                self._verify(verify)
                if self.stops_early and not last:
                    last = True
                    if not save:
                        self._checkpoint()
            self._interval.pause_seconds += time.perf_counter() - pause_start
        self.consensus.exchange()  # raises TrainingError for errors since the last log line

    def _due(self, step: int, last: bool) -> tuple[bool, Verify | None, bool]:
        """Return whether to save, the function that verifies now or None, and whether to log."""
        save = self.cadence.saves(step, last)
        verify = self.verify if self.cadence.verifies(step, last) else None
        return save, verify, save or verify is not None or is_due(step, self.cadence.log_every)

    def _step(self, clock: DeviceClock) -> None:
        """Issue one step on the current batch; wait until at most two steps are in flight."""
        run, progress, batch, model = self._run, self.progress, self._batch, self.model
        interval, fraction = self._interval, run.margin(progress.images)
        last = progress.images + run.global_batch_size >= run.end_images
        logs = self._due(progress.step + 1, last)[2]
        model.set_learning_rate(run.lr(progress.images))
        margin = mx.nd.array([fraction], ctx=self._weight.list_ctx()[0])

        def observe(embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
            interval.accuracy = measure_accuracy(model.head, embedding, label)

        loss, cosine = train_step(
            model.net,
            model.head,
            model.trainer,
            batch.image,
            batch.label,
            margin,
            clip_norm=run.clip_norm,
            size=self.comm.size,
            shard_trainer=model.shard_trainer,
            sum_over_ranks=partial(self.comm.sum_rows, key="clip"),
            observe=observe if logs else None,
        )
        clock.step(self._weight.list_data()[0])
        interval.losses.append(loss)
        interval.cosines.append(cosine)
        interval.margins.append(fraction)
        progress.step += 1
        progress.images += run.global_batch_size
        progress.epoch, progress.consumed = batch.after
        self._issued.append(loss)
        if len(self._issued) == 3:
            self._issued[0].wait_to_read()  # Sync: the host is at most two steps ahead

    def _fetch(self, clock: DeviceClock) -> None:
        """Get the next batch; if the loader fails, record its error and keep the previous batch."""
        consensus, start = self.consensus, time.perf_counter()
        # Horovod: a rank with a full disk still calls the loader, because Bags exchanges data
        # between all ranks (training/bag.py).
        if consensus.trouble is None or consensus.trouble.kind is Kind.DISK:
            try:
                self._batch = next(self.loader)
                self._interval.skipped |= dict(getattr(self._batch, "skipped", ()))
            except (ValueError, OSError) as error:
                consensus.trouble = Trouble(Kind.DATA, str(error))
            except RuntimeError as error:  # an error of DALI, MXNet or CUDA
                text = (
                    f"the loader failed, got {type(error).__name__}: {one_line(error)}; use a "
                    "smaller data.batch_size if memory is full, or data.decode=native, which "
                    "decodes on the CPU"
                )
                consensus.trouble = Trouble(Kind.DATA, text)
            except FloatingPointError as error:
                consensus.trouble = Trouble(Kind.NOT_FINITE, str(error), self.progress.step)
        self._interval.idle_seconds += clock.idle_seconds(start, time.perf_counter())

    def _log(self) -> None:
        """Read the losses from the device, exchange them with the other ranks, write a log line."""
        interval, progress, run = self._interval, self.progress, self._run
        # Sync: the host copies all losses since the last log line at once.
        losses = mx.nd.concat(*interval.losses, dim=0).asnumpy()
        cosine = float(mx.nd.concat(*interval.cosines, dim=0).mean().asscalar())
        accuracy = interval.accuracy
        seconds = time.perf_counter() - interval.start_time - interval.pause_seconds
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            step = progress.step - len(losses) + int(bad[0]) + 1
            text = f"the loss of step {step} is not finite, got {losses[bad[0]]}"
            self.consensus.report(Trouble(Kind.NOT_FINITE, text, step))
        rank_values = self.consensus.exchange(
            loss=float(losses.mean()) if not len(bad) else float("nan"),
            first_loss=float(losses[0]),
            cosine=cosine,
            accuracy=float("nan") if accuracy is None else float(accuracy.asscalar()),
            skipped=len(interval.skipped),
            data_wait_fraction=interval.idle_seconds / max(seconds, 1e-9),
        )
        images = len(losses) * run.global_batch_size
        data_wait_fraction = float(rank_values["data_wait_fraction"].max())
        totals = self.totals
        totals.images += images
        totals.seconds += seconds
        totals.idle_seconds += data_wait_fraction * seconds
        totals.final_loss = float(rank_values["loss"].mean())
        first_loss, margins = float(rank_values["first_loss"].mean()), interval.margins
        self.history.add_losses(first_loss, totals.final_loss, (margins[0], margins[-1]))
        values = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": totals.final_loss,
            "lr": self.model.trainer.learning_rate,
            "images_per_second": images / seconds,
            "data_wait_fraction": data_wait_fraction,
            "cosine": float(rank_values["cosine"].mean()),
            "margin_fraction": margins[-1],
            "images": progress.images,
            "eta_s": int((run.end_images - progress.images) / images * seconds),
        }
        if accuracy is not None:
            values["training_accuracy"] = float(rank_values["accuracy"].mean())
        if rank_values["skipped"].any():
            permitted, say = run.permitted_bad_images, self.log.say
            found = interval.skipped.items()
            exchange_skipped(self.comm, self.history, found, permitted=permitted, say=say)
        if self.history.skipped:
            values["skipped_images"] = len(self.history.skipped)
        self.log.say(progress_line(values, self.end_steps))
        self._write_metrics(values)
        self._interval = Interval(time.perf_counter())

    def _write_metrics(self, values: Mapping[str, Any]) -> None:
        try:
            self.log.metrics(values)
        except OSError as error:
            text = f"metrics.jsonl cannot be written, got {error.strerror}; free disk space"
            self.consensus.report(Trouble(Kind.DISK, text))

    def _stop_if_agreed(self) -> None:
        if not self.consensus.stop_agreed:
            return
        steps = max(1, self.totals.images // self._run.global_batch_size)

        def save() -> None:
            self._average_statistics()
            self._checkpoint()

        self.consensus.stop(self.progress.step, self.totals.seconds / steps, save)

    def _average_statistics(self) -> None:
        """Average the running statistics of BatchNorm over the ranks."""
        # Horovod: each rank has computed these statistics from its own images only.
        self.comm.average(
            {
                name: p.list_data()[0]
                for name, p in self.model.net._collect_params_with_prefix().items()
                if name.endswith(STATISTICS_SUFFIXES) and p.lr_mult  # 0: frozen
            }
        )

    def _checkpoint(self) -> None:
        """Write the periodic checkpoint of this step."""
        step = self.progress.step
        self._save(self.save)
        self.consensus.saved_step = step
        # The state of MXNet's random generator cannot be saved.  Every run therefore seeds the
        # generator after each checkpoint, so that a resumed run draws the same numbers.
        reseed(self._run.seed, step, self.comm.rank)

    def _save(self, save: Callable[[], Any]) -> None:
        step, blocks, trouble = self.progress.step, (self.model.net, self.model.head), None
        arrays = [p.list_data()[0] for b in blocks for p in b.collect_params().values()]
        if not all_finite(arrays):
            text = f"the weights after step {step} are not finite, got NaN or infinity"
            trouble = Trouble(Kind.NOT_FINITE, text, step)
        all_write = shard_of(self.model.head) is not None
        if all_write:
            # Horovod: no rank may wait in `save` for a rank that ends because of NaN or infinity.
            self.consensus.settle(trouble)
        if trouble is None and (all_write or self.comm.rank == 0):
            try:
                save()
            except ValueError as error:
                trouble = Trouble(Kind.DISK, str(error))
        self.consensus.settle(trouble)

    def _verify(self, verify: Verify) -> None:
        self.log.say(f"verifying the net of step {self.progress.step}")
        try:
            self.verification = verify()
        except ValueError as error:  # every rank gets the same error
            raise TrainingError(f"verification: {error}", usage=True) from None
        line: dict[str, Any] = {"step": self.progress.step, "epoch": self.progress.epoch}
        for name, result in self.verification.items():
            self.log.say(verification_line(name, result))
            line |= {f"verification/{name}/{k}": v for k, v in result.items()}
        self._write_metrics(line)
        if self.best is not None and (found := self.best.update(line["step"], self.verification)):
            self.log.say(found)
            self._save(self.best.save)

# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, their log, checkpoints, verification, and all ranks leaving together.

The host issues at most two steps ahead of the device.  Losses stay on the device and are read
every ``log_every`` steps, when the ranks also tell each other what is wrong: a damaged picture,
a loss that is not finite, a disk that is full, a request to stop.  A rank in trouble feeds its
last good batch until then, so that no collective is left waiting; then all leave at the same step.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from launch.ranks.comm import Comm
from training.clock import DeviceClock
from training.faults import Stopped, TrainingError, one_line
from training.log import RunLog, progress_line, verification_line
from training.step import all_finite, train_step

STOP_SECONDS = 4.0
"""horovodrun kills 5 s after SIGTERM: a checkpoint is saved on SIGTERM only if it fits this."""


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    images: int = 0
    epoch: int = 0
    consumed: int = 0


@dataclass
class _Interval:
    """What has gathered since the last log line."""

    started: float
    losses: list[mx.nd.NDArray] = field(default_factory=list)
    cosines: list[mx.nd.NDArray] = field(default_factory=list)
    waited: float = 0.0
    paused: float = 0.0


@dataclass(frozen=True)
class Totals:
    """Sums over the run of this process."""

    images: int
    seconds: float
    waited: float
    final_loss: float | None

    @property
    def images_per_second(self) -> float:
        """Images of all ranks per second of training, without verification and saving."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """Share of the training time in which the device had no work for want of data."""
        return self.waited / self.seconds if self.seconds else 0.0


class Loop:
    """Trains from ``progress`` to ``end_images``.

    Parameters
    ----------
    net, head, trainer
        Initialised; the trainer holds the parameters of both.
    loader
        Iterator of batches (see pipeline/loader.py).
    progress
        Changed in place.
    end_images
        Images of all ranks after which the run ends.
    lr, margin
        Learning rate and margin fraction as functions of the images used so far.
    save
        Writes a checkpoint, on rank 0 alone; raises ValueError if it cannot.
    verify
        Returns ``{set: result}``; all ranks call it together.
    """

    def __init__(
        self,
        net: gluon.HybridBlock,
        head: gluon.HybridBlock,
        trainer: gluon.Trainer,
        loader: Any,
        comm: Comm,
        log: RunLog,
        progress: Progress,
        end_images: int,
        batch_size: int,
        lr: Callable[[int], float],
        margin: Callable[[int], float],
        save: Callable[[], Any],
        verify: Callable[[], Mapping[str, Mapping[str, Any]]] | None,
        seed: int,
        clip_norm: float = 0.0,
        log_every: int = 20,
        checkpoint_every: int = 1000,
        verify_every: int = 0,
    ):
        self.net, self.head, self.trainer = net, head, trainer
        self.loader, self.comm, self.log = loader, comm, log
        self.progress, self.end_images, self.batch_size = progress, end_images, batch_size
        self.lr, self.margin = lr, margin
        self.save, self.verify = save, verify
        self.seed, self.clip_norm = seed, clip_norm
        self.log_every, self.checkpoint_every = log_every, checkpoint_every
        self.verify_every = verify_every
        self.whole = batch_size * comm.size
        self.end_steps = progress.step + -(-(end_images - progress.images) // self.whole)
        self.verification: Mapping[str, Mapping[str, Any]] = {}
        self._trouble: dict[str, Any] | None = None
        self._stop_at: float | None = None
        self._stop_agreed = False
        self._batch: Any = None
        self._saved_at = progress.step if progress.step else -1
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._final_loss: float | None = None
        self._interval = _Interval(time.perf_counter())

    @property
    def totals(self) -> Totals:
        """Return the sums so far."""
        return Totals(self._images, self._seconds, self._waited, self._final_loss)

    @property
    def epochs(self) -> int:
        """Return how many epochs have been completed."""
        left = self.loader.images_per_epoch - self.progress.consumed
        return self.progress.epoch + (self.progress.consumed > 0 and left < self.whole)

    def run(self) -> None:
        """Train to the end.

        Raises
        ------
        TrainingError
            On every rank, at the same step, with the same sentence.
        Stopped
            Likewise, when some rank was asked to stop.
        """
        asking = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup asks for
            asking.append(signal.SIGHUP)
        handlers = {s: signal.signal(s, self._ask_stop) for s in asking}
        clock = DeviceClock()
        try:
            self._steps(clock)
        finally:
            clock.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _steps(self, clock: DeviceClock) -> None:
        progress, issued = self.progress, deque[mx.nd.NDArray](maxlen=3)
        weight = next(p for p in self.net.collect_params().values() if p.grad_req != "null")
        context = weight.list_ctx()[0]
        if progress.images >= self.end_images:
            if self.verify is not None:  # ended between the last checkpoint and its verification
                self._verify()
            return
        self._fetch(clock)
        self._compare()  # before the first collective of a step: is there a first batch at all?
        if self._stop_agreed:
            self._stop()
        self._interval = _Interval(time.perf_counter())
        while progress.images < self.end_images:
            batch = self._batch
            self.trainer.set_learning_rate(self.lr(progress.images))
            margin = mx.nd.array([self.margin(progress.images)], ctx=context)
            loss, cosine = train_step(
                self.net,
                self.head,
                self.trainer,
                batch.image,
                batch.label,
                margin,
                self.clip_norm,
                self.comm.size,
            )
            clock.step(weight.list_data()[0])
            self._interval.losses.append(loss)
            self._interval.cosines.append(cosine)
            progress.step += 1
            progress.images += self.whole
            progress.epoch, progress.consumed = batch.after
            issued.append(loss)
            if len(issued) == 3:
                issued[0].wait_to_read()  # Sync: the host is at most two steps ahead
            if progress.images < self.end_images:
                self._fetch(clock)
            self._after_step()
        self._compare()  # what went wrong after the last line

    def _after_step(self) -> None:
        progress = self.progress
        last = progress.images >= self.end_images
        save = last or progress.step % self.checkpoint_every == 0
        verify = self.verify is not None and (
            last or (self.verify_every and progress.step % self.verify_every == 0)
        )
        if save or verify or progress.step % self.log_every == 0:
            self._write_line()
            if self._stop_agreed:
                self._stop()
        began = time.perf_counter()
        if save or verify:
            self._average_statistics()
        if save:
            self._checkpoint()
        if verify:
            self._verify()
        self._interval.paused += time.perf_counter() - began

    def _fetch(self, clock: DeviceClock) -> None:
        """Get the next batch; on trouble with that keep the last good one."""
        asked = time.perf_counter()
        # Horovod: a rank whose disk is full goes on asking: bags ask all ranks (training/bag.py).
        if self._trouble is None or self._trouble["kind"] == "disk":
            try:
                self._batch = next(self.loader)
            except (ValueError, OSError) as error:
                self._trouble = {"kind": "data", "text": str(error)}
            except RuntimeError as error:  # of DALI, MXNet or CUDA, perhaps on this rank alone
                text = (
                    f"the loader failed, got {one_line(error)}; use a smaller data.batch_size if "
                    "memory is full, or data.decode=native, which decodes on the CPU"
                )
                self._trouble = {"kind": "data", "text": text}
            except FloatingPointError as error:
                step = self.progress.step
                self._trouble = {"kind": "finite", "step": step, "text": str(error)}
        self._interval.waited += clock.starved(asked, time.perf_counter())

    def _write_line(self) -> None:
        """Read the losses, compare notes with the other ranks, write one line."""
        interval, progress = self._interval, self.progress
        # Sync: all losses since the last line, in one copy.
        losses = mx.nd.concat(*interval.losses, dim=0).asnumpy()
        cosine = float(mx.nd.concat(*interval.cosines, dim=0).mean().asscalar())
        seconds = time.perf_counter() - interval.started - interval.paused
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad) and self._trouble is None:
            step = progress.step - len(losses) + int(bad[0]) + 1
            text = f"the loss of step {step} is not finite, got {losses[bad[0]]}"
            self._trouble = {"kind": "finite", "step": step, "text": text}
        mean = float(losses.mean()) if not len(bad) else float("nan")
        rows = self._compare(mean, cosine, interval.waited / max(seconds, 1e-9))
        images = len(losses) * self.whole
        self._images += images
        self._seconds += seconds
        self._waited += rows[:, 2].max() * seconds
        self._final_loss = float(rows[:, 0].mean())
        values = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": self._final_loss,
            "lr": self.trainer.learning_rate,
            "images_per_second": images / seconds,
            "data_wait_fraction": float(rows[:, 2].max()),
            "cosine": float(rows[:, 1].mean()),
            "margin_fraction": self.margin(progress.images - self.whole),
            "images": progress.images,
            "eta_s": int((self.end_images - progress.images) / images * seconds),
        }
        self.log.say(progress_line(values, self.end_steps))
        self._write_metrics(values)
        self._interval = _Interval(time.perf_counter())

    def _write_metrics(self, values: Mapping[str, Any]) -> None:
        try:
            self.log.metrics(values)
        except OSError as error:
            if self._trouble is None:
                text = f"metrics.jsonl cannot be written, got {error.strerror}; make room"
                self._trouble = {"kind": "disk", "text": text}

    def _compare(self, *numbers: float) -> np.ndarray:
        """Exchange numbers and troubles; leave on all ranks if there is one.  Returns (size, n)."""
        flags = [self._trouble is not None, self._stop_at is not None]
        rows = self.comm.gather(np.array([[*numbers, *flags]], dtype=np.float64))
        if rows[:, -2].any():
            troubles = self.comm.gather_json(self._trouble)
            self._leave([(r, t) for r, t in enumerate(troubles) if t is not None])
        self._stop_agreed = bool(rows[:, -1].any())
        return rows[:, :-2]

    def _leave(self, troubles: list[tuple[int, dict[str, Any]]]) -> None:
        """Raise the error that all ranks agree on: the earliest trouble, then the lowest rank."""
        rank, first = min(troubles, key=lambda t: (t[1]["kind"] == "finite", t[1].get("step", 0)))
        where = f"rank {rank}: " if self.comm.size > 1 else ""
        if first["kind"] != "finite":
            raise TrainingError(f"{where}{first['text']}", usage=True)
        saved = f"step {self._saved_at}" if self._saved_at >= 0 else "none yet"
        raise TrainingError(
            f"{where}{first['text']}; the last good checkpoint ({saved}) is kept, begin anew "
            "(run.resume=false) with a lower optim.lr, a longer optim.warmup or "
            "train.margin_warmup, or with optim.clip_norm"
        )

    def _stop(self) -> None:
        step_seconds = self._seconds / max(1, self._images // self.whole)
        asked = self._stop_at if self._stop_at is not None else time.perf_counter()
        left = STOP_SECONDS - (time.perf_counter() - asked)
        # Horovod: every rank must decide alike.
        fits = self.comm.gather(np.array([[left]])).min() > max(1.0, 2 * step_seconds)
        if fits and self._saved_at != self.progress.step:
            self._average_statistics()
            self._checkpoint()
        raise Stopped(
            f"stopped at step {self.progress.step}, saved at step {max(self._saved_at, 0)}; the "
            "same command goes on from there"
        )

    def _ask_stop(self, number: int, frame: Any) -> None:
        if self._stop_at is None:  # the time that is left counts from the first request
            self._stop_at = time.perf_counter()

    def _average_statistics(self) -> None:
        """Horovod: BatchNorm's running statistics differ between ranks; use their mean."""
        self.comm.average(
            {
                name: p.list_data()[0]
                for name, p in self.net._collect_params_with_prefix().items()
                if name.endswith(("running_mean", "running_var"))
            }
        )

    def _checkpoint(self) -> None:
        blocks = (self.net, self.head)
        arrays = [p.list_data()[0] for b in blocks for p in b.collect_params().values()]
        trouble = None
        if not all_finite(arrays):
            text = (
                f"the weights after step {self.progress.step} are not finite, got NaN or infinity"
            )
            trouble = {"kind": "finite", "step": self.progress.step, "text": text}
        elif self.comm.rank == 0:
            try:
                self.save()
            except ValueError as error:
                trouble = {"kind": "disk", "text": str(error)}
        found = [(r, t) for r, t in enumerate(self.comm.gather_json(trouble)) if t is not None]
        if found:
            self._leave(found)
        self._saved_at = self.progress.step
        # MXNet's generator cannot be saved: from here on it is a function of (seed, step, rank),
        # in a run that goes on undisturbed as in one that is resumed here.
        reseed(self.seed, self.progress.step, self.comm.rank)

    def _verify(self) -> None:
        assert self.verify is not None
        try:
            self.verification = self.verify()
        except ValueError as error:  # of the embeddings or the set, alike on all ranks
            raise TrainingError(f"verification: {error}", usage=True) from None
        line: dict[str, Any] = {"step": self.progress.step, "epoch": self.progress.epoch}
        for name, result in self.verification.items():
            self.log.say(verification_line(name, result))
            line |= {f"verification/{name}/{k}": v for k, v in result.items()}
        self._write_metrics(line)


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed MXNet's generator from the place in the run."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1)
    mx.random.seed(int(words[0]) & 0x7FFFFFFF)

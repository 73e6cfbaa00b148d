# SPDX-License-Identifier: Apache-2.0
"""The training loop: log lines, checkpoints, the data wait, and the ends of a run."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from heads import build_head
from launch.ranks.comm import Comm
from pipeline import build_loader
from tests.training.gate import OPEN, gated
from training import consensus
from training import loop as loop_module
from training.faults import Stopped, TrainingError
from training.layer_groups import set_lr_factors
from training.log import RunLog
from training.loop import Cadence, Loop
from training.run import Progress, Run, reseed
from training.step import Model, build_optimizer, collect_parameters

if TYPE_CHECKING:
    from pipeline.loader import Batch

BATCH, PEOPLE, EMBEDDING = 4, 10, 8


class Source:
    """Synthetic loader that calls ``act(number)`` before each batch.

    The number of the first batch is 1.  An array that ``act`` returns replaces the image.
    """

    def __init__(self, act=None, size=16, batch_size=BATCH):
        self.loader = build_loader(
            "synthetic", None, batch_size, num_classes=PEOPLE, image_size=(size, size)
        )
        self.act, self.number = act or (lambda number: None), 0

    @property
    def images_per_epoch(self) -> int:
        return self.loader.images_per_epoch

    def __next__(self) -> Batch:
        self.number += 1
        image = self.act(self.number)
        batch = next(self.loader)
        return batch if image is None else batch._replace(image=image)


@pytest.fixture
def make_loop(tmp_path):
    """Return ``make_loop(source, steps, **options)``; its ``saved`` holds the saved steps."""
    sources = []

    def make(source, steps, channels=4, lr=0.01, save=None, progress=None, **options):
        sources.append(source)
        reseed(1, 0, 0)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(channels, 3, in_channels=3), nn.BatchNorm(in_channels=channels))
        net.add(nn.Conv2D(channels, 3, in_channels=channels), nn.GlobalAvgPool2D(), nn.Flatten())
        net.add(nn.Dense(EMBEDDING, in_units=channels))
        head = build_head("normface", PEOPLE, EMBEDDING, scale=8.0)
        set_lr_factors(collect_parameters(net, head), options.pop("factors", {}))
        for block in (net, head):
            block.initialize(mx.init.Xavier())
            block.hybridize(static_alloc=True, static_shape=True)
        parameters = collect_parameters(net, head)
        optimizer = build_optimizer(parameters, "sgd", lr, 0.9, 0.0)
        saved, progress = [], progress or Progress()
        batch_size = source.loader and next(source.loader).image.shape[0]
        run = Run(
            folder=tmp_path,
            progress=progress,
            seed=1,
            global_batch_size=batch_size,
            epoch_images=1000 * batch_size,
            end_images=steps * batch_size,
            lr=options.pop("rate", lambda images: lr),
            margin=options.pop("margin", lambda images: 1.0),
        )
        loop = Loop(
            Model(net, head, Comm().trainer(parameters, optimizer), parameters),
            source,
            options.pop("comm", Comm()),
            RunLog(tmp_path),
            run,
            save=save or (lambda: saved.append(progress.step)),
            verify=options.pop("verify", None),
            cadence=Cadence(**options),
        )
        return SimpleNamespace(loop=loop, saved=saved, progress=progress, parameters=parameters)

    yield make
    for source in sources:
        source.loader.close()


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_and_checkpoints_follow_the_cadence(make_loop, tmp_path, capsys):
    made = make_loop(
        Source(),
        11,
        log_every=4,
        checkpoint_every=6,
        rate=lambda images: 0.1 / (1 + images),
        margin=lambda images: images / 100,
    )
    made.loop.run()
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [4, 6, 8, 11]
    assert [line["images"] for line in lines] == [16, 24, 32, 44]
    # Rate and margin of the last step of each line depend on the images before that step.
    assert [line["lr"] for line in lines] == [0.1 / (1 + n) for n in (12, 20, 28, 40)]
    assert [line["margin_fraction"] for line in lines] == [0.12, 0.20, 0.28, 0.40]
    assert made.saved == [6, 11]
    assert made.progress.step == 11 and made.progress.images == 44
    assert lines[-1]["eta_s"] == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == [f"step {n}/11" for n in (4, 6, 8, 11)]


def test_the_loss_is_the_mean_since_the_last_line_and_falls(make_loop, tmp_path):
    made = make_loop(Source(), 40, lr=0.2, log_every=20)
    made.loop.run()
    first, last = (line["loss"] for line in metrics(tmp_path))
    assert last < first
    assert made.loop.totals.final_loss == last
    assert made.loop.totals.images == 160
    assert first < 2 * np.log(PEOPLE)


def test_the_log_interval_does_not_change_the_weights(make_loop, tmp_path):
    weights = []
    for log_every in (3, 5):
        made = make_loop(Source(), 10, log_every=log_every)
        made.loop.run()
        weights.append([p.data().asnumpy() for p in made.parameters.values()])
    assert all((a == b).all() for a, b in zip(*weights))


def test_the_saved_position_is_that_of_the_last_trained_batch(make_loop):
    seen = []
    made = make_loop(Source(), 7, checkpoint_every=3)
    made.loop.save = lambda: seen.append((made.progress.epoch, made.progress.consumed))
    made.loop.run()
    # make_loop has read one batch for its size.
    assert seen == [(0, 4 * BATCH), (0, 7 * BATCH), (0, 8 * BATCH)]


def test_verification_follows_the_cadence_and_ends_the_run(make_loop, tmp_path, capsys):
    result = {
        "accuracy": 0.75,
        "accuracy_std": 0.1,
        "tar_at_far_1e-3": None,
        "xnorm": 3.0,
        "pairs": 40,
    }
    steps = []

    def verify():
        steps.append(made.progress.step)
        return {"tiny": result}

    made = make_loop(Source(), 7, verify=verify, verify_every=3, log_every=100)
    made.loop.run()
    assert steps == [3, 6, 7]
    assert made.loop.verification == {"tiny": result}
    verified = [line for line in metrics(tmp_path) if "verification/tiny/accuracy" in line]
    assert [line["step"] for line in verified] == [3, 6, 7]
    assert verified[0]["verification/tiny/xnorm"] == 3.0
    assert "verify tiny: accuracy 0.7500 +- 0.1000" in capsys.readouterr().out


def test_a_non_finite_loss_is_refused_by_step(make_loop):
    def act(number):
        return mx.nd.full((BATCH, 3, 16, 16), float("nan")) if number == 8 else None

    made = make_loop(Source(act), 30, log_every=5, checkpoint_every=5)
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "the loss of step 8 is not finite, got nan; the last good checkpoint (step 5) is kept; "
        "start a new run (run.resume=false) with at least one change: a lower optim.lr, a longer "
        "optim.warmup or train.margin_warmup, gradient clipping (optim.clip_norm), or trained "
        "weights (train.pretrained)"
    )
    assert not caught.value.usage
    assert made.progress.step == 10 and made.saved == [5]


def test_non_finite_weights_are_not_saved(make_loop):
    made = make_loop(Source(), 4, log_every=4)
    weight = made.parameters["head.weight"]
    with_nan = weight.data().asnumpy()
    with_nan[PEOPLE - 1] = np.nan
    # No forward pass sees the update of the last step, so no loss shows it.
    log = made.loop._log
    made.loop._log = lambda: (log(), weight.set_data(mx.nd.array(with_nan)))
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "the weights after step 4 are not finite, got NaN or infinity; no checkpoint has been "
        "saved yet; start a new run (run.resume=false) with at least one change: a lower "
        "optim.lr, a longer optim.warmup or train.margin_warmup, gradient clipping "
        "(optim.clip_norm), or trained weights (train.pretrained)"
    )
    assert made.saved == []


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_data_error_ends_the_run_at_the_next_exchange(make_loop, error, tmp_path):
    calls = []

    def act(number):
        calls.append(number)
        if number == 7:
            raise error("train.rec: the image of key 3 cannot be decoded")

    made = make_loop(Source(act), 30, log_every=5)
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == "train.rec: the image of key 3 cannot be decoded"
    assert caught.value.usage
    assert made.progress.step == 10  # until then the loop repeats the last good batch
    assert calls == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in metrics(tmp_path)] == [5]


def test_a_run_without_its_last_verification_gets_it_on_resume(make_loop, tmp_path):
    progress, steps = Progress(step=3, images=3 * BATCH), []

    def verify():
        steps.append(progress.step)
        return {}

    made = make_loop(Source(), 3, progress=progress, verify=verify)
    made.loop.run()
    assert steps == [3] and made.saved == [] and made.progress.step == 3
    assert "loss" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_verification_error_ends_the_run(make_loop):
    def verify():
        raise ValueError("tiny: the embedding of image 0 is zero")

    made = make_loop(Source(), 2, verify=verify)
    with pytest.raises(TrainingError, match=r"^verification: tiny: the embedding") as caught:
        made.loop.run()
    assert caught.value.usage and made.saved == [2]


def test_an_epoch_without_a_complete_step_left_counts(make_loop):
    made = make_loop(Source(), 2)
    made.loop.run()
    assert made.loop.epochs == 0
    made.progress.consumed = made.loop.loader.images_per_epoch - BATCH + 1
    assert made.loop.epochs == 1


def test_non_finite_embeddings_name_the_last_checkpoint(make_loop):
    def act(number):
        if number == 7:  # Bags raises it
            raise FloatingPointError("the embeddings of a bag are not finite, got NaN or infinity")

    made = make_loop(Source(act), 30, log_every=5, checkpoint_every=5)
    sentence = r"^the embeddings of a bag .*; the last good checkpoint \(step 5\) is kept"
    with pytest.raises(TrainingError, match=sentence) as caught:
        made.loop.run()
    assert not caught.value.usage and made.saved == [5]


def test_no_step_runs_without_a_first_batch(make_loop):
    def act(number):
        raise ValueError("train.rec: nothing there")

    made = make_loop(Source(act), 30)
    with pytest.raises(TrainingError, match=r"^train\.rec: nothing there$"):
        made.loop.run()
    assert made.progress.step == 0


def test_an_unwritable_checkpoint_ends_the_run(make_loop):
    def save():
        raise ValueError("step-00000004: the checkpoint cannot be written")

    made = make_loop(Source(), 30, log_every=2, checkpoint_every=4, save=save)
    with pytest.raises(TrainingError, match=r"^step-00000004: the checkpoint cannot") as caught:
        made.loop.run()
    assert caught.value.usage and made.progress.step == 4


def test_unwritable_metrics_end_the_run(make_loop):
    made = make_loop(Source(), 30, log_every=2)

    def refuse(values):
        raise OSError(28, "No space left on device")

    made.loop.log.metrics = refuse
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "metrics.jsonl cannot be written, got No space left on device; free disk space"
    )
    assert caught.value.usage and made.progress.step == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_saves_and_ends_the_run(make_loop, monkeypatch, number):
    monkeypatch.setattr(consensus, "GRACE_S", 3600.0)  # a busy machine may be slow
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]

    def act(batch):
        if batch == 7:
            os.kill(os.getpid(), number)

    made = make_loop(Source(act), 30, log_every=5)
    with pytest.raises(Stopped) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "stopped at step 10, saved at step 10; the same command resumes at step 10"
    )
    assert made.saved == [10] and made.progress.step == 10
    assert handlers == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]


def test_a_resumed_run_continues_to_count_steps(make_loop, tmp_path, capsys):
    progress = Progress(step=6, images=6 * BATCH, epoch=0, consumed=6 * BATCH)
    made = make_loop(Source(), 10, log_every=5, progress=progress)
    made.loop.run()
    assert [line["step"] for line in metrics(tmp_path)] == [10]
    assert made.saved == [10] and made.progress.images == 10 * BATCH
    assert capsys.readouterr().out.startswith("step 10/10 ")


def test_every_checkpoint_reseeds_the_generator(make_loop):
    draws = []
    for before in (0, 5):  # draws before the checkpoint must not matter
        made = make_loop(Source(), 4, checkpoint_every=2)
        mx.nd.random.uniform(shape=(before + 1,)).wait_to_read()
        made.loop.run()
        draws.append(mx.nd.random.uniform(shape=(3,)).asnumpy())
    reseed(1, 4, 0)
    expected = mx.nd.random.uniform(shape=(3,)).asnumpy()
    assert (draws[0] == expected).all() and (draws[1] == expected).all()


class Machine:
    """Replacement of ``time``: time passes only in sleeps and in waits for the device."""

    def __init__(self):
        self.now, self.ends = 100.0, [0.0]  # ends of the steps on the device

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, steps_ahead: int) -> None:
        """Wait until at most ``steps_ahead`` steps are in flight."""
        if len(self.ends) > steps_ahead:
            self.now = max(self.now, self.ends[-1 - steps_ahead])


class MachinesClock:
    """DeviceClock of a `Machine`."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def step(self, weight) -> None:
        machine = self.machine
        machine.ends.append(max(machine.now, machine.ends[-1]) + DEVICE_SECONDS)
        machine.wait(2)  # as the loop does

    def idle_seconds(self, start: float, end: float) -> float:
        return max(0.0, end - max(start, self.machine.ends[-1]))

    def close(self) -> None:
        pass


DEVICE_SECONDS = 0.06


def run_with_sleeps(make_loop, monkeypatch, folder, seconds, each):
    """Alternate intervals of ``each`` steps with a fast loader and with a slow one.

    Return (seconds per step, data_wait_fraction) of the log lines without the first of each kind.
    """
    machine = Machine()

    def act(number):
        # The loop requests batch n + 1 in the interval of step n, and batch 1 before any interval.
        if number >= 2 and (number - 2) // each % 2:
            machine.sleep(seconds)

    monkeypatch.setattr(loop_module, "time", machine)
    monkeypatch.setattr(loop_module, "DeviceClock", lambda: MachinesClock(machine))
    # The last step requests no batch, so the run has one more interval.
    made = make_loop(Source(act), each * 9, log_every=each)
    log = made.loop._log

    def wait_and_log():
        machine.wait(0)  # the losses are ready
        log()

    made.loop._log = wait_and_log
    made.loop.run()
    found = [
        (BATCH / line["images_per_second"], line["data_wait_fraction"])
        for line in metrics(folder)[2:8]
    ]
    return found[0::2], found[1::2], made.loop.totals


def test_data_wait_fraction_counts_the_idle_time_of_the_device(make_loop, monkeypatch, tmp_path):
    quick, slowed, totals = run_with_sleeps(make_loop, monkeypatch, tmp_path, 0.4, each=1)
    assert quick == [(pytest.approx(DEVICE_SECONDS), 0)] * 3
    # The fraction would be 1 if it counted the part of the sleep in which the device works.
    assert slowed == [(pytest.approx(0.4), pytest.approx(1 - DEVICE_SECONDS / 0.4))] * 3
    waited, worked = 4 * (0.4 - DEVICE_SECONDS), 9 * DEVICE_SECONDS
    assert totals.data_wait_fraction == pytest.approx(waited / (waited + worked))


def test_a_wait_shorter_than_the_steps_in_flight_counts_nothing(make_loop, monkeypatch, tmp_path):
    seconds = DEVICE_SECONDS / 4
    _, slowed, _ = run_with_sleeps(make_loop, monkeypatch, tmp_path, seconds, each=4)
    assert slowed == [(pytest.approx(DEVICE_SECONDS), 0)] * 3


class GatedNet(mx.gluon.Block):
    """Net whose output is ready after the gate is open."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image):
        return gated(self.net(image))


def test_a_wait_during_a_real_step_counts_nothing(make_loop, tmp_path):
    OPEN.clear()
    made = make_loop(Source(lambda number: time.sleep(0.01)), 6, log_every=1)
    made.loop.model = replace(made.loop.model, net=GatedNet(made.loop.model.net))
    log = made.loop._log

    def open_gate_and_log():
        OPEN.set()
        log()
        OPEN.clear()

    made.loop._log = open_gate_and_log
    try:
        made.loop.run()
    finally:
        OPEN.set()
    # Exactly 0: no update finished while the loop waited for a batch.
    assert [line["data_wait_fraction"] for line in metrics(tmp_path)] == [0] * 6


@pytest.mark.parametrize("kind", [RuntimeError, mx.base.MXNetError])
def test_a_loader_failure_ends_the_run_with_advice(make_loop, kind):
    def act(number):
        if number == 4:
            raise kind("out of memory\nStacktrace (2 entries):\n[frame 0]")

    made = make_loop(Source(act), 20, log_every=5)
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        f"the loader failed, got {kind.__name__}: out of memory; use a smaller "
        "data.batch_size if memory is full, or data.decode=native, which decodes on the CPU"
    )
    assert caught.value.usage
    assert made.progress.step == 5  # the next exchange


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_statistics_are_not_averaged_over_the_ranks(make_loop, frozen):
    class Averaging(Comm):
        """Communication that records the arrays to be averaged."""

        def average(self, arrays):
            names.update(arrays)

    names = set()
    make_loop(Source(), 2, comm=Averaging(), factors={"1": 0.0} if frozen else {}).loop.run()
    assert names == (set() if frozen else {"1.running_mean", "1.running_var"})


def test_the_head_can_be_trained_alone(make_loop):
    made = make_loop(Source(), 3, factors={str(i): 0.0 for i in range(6)})
    before = {name: p.data().asnumpy() for name, p in made.parameters.items()}
    made.loop.run()
    changed = {
        name for name, p in made.parameters.items() if (p.data().asnumpy() != before[name]).any()
    }
    assert changed == {"head.weight"}

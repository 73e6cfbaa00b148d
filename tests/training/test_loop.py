# SPDX-License-Identifier: Apache-2.0
"""The loop: what it logs, when it saves, how it measures waiting, and how it leaves."""

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
from training.log import RunLog
from training.loop import Cadence, Loop
from training.run import Progress, Run, reseed
from training.step import Model, build_optimizer, collect_parameters

if TYPE_CHECKING:
    from pipeline.loader import Batch

BATCH, PEOPLE, EMBEDDING = 4, 10, 8


class Source:
    """The synthetic loader with something done before each batch is given.

    ``act(number)`` is called with the number of the batch, from 1; what it returns, if anything,
    is given in the place of the image.
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
    """Return ``make_loop(source, steps, **options)``; ``loop.saved`` holds the saved steps."""
    sources = []

    def make(source, steps, channels=4, lr=0.01, save=None, progress=None, **options):
        sources.append(source)
        reseed(1, 0, 0)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(channels, 3, in_channels=3), nn.BatchNorm(in_channels=channels))
        net.add(nn.Conv2D(channels, 3, in_channels=channels), nn.GlobalAvgPool2D(), nn.Flatten())
        net.add(nn.Dense(EMBEDDING, in_units=channels))
        head = build_head("normface", PEOPLE, EMBEDDING, scale=8.0)
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
            Comm(),
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


def test_lines_and_checkpoints_come_when_they_are_due(make_loop, tmp_path, capsys):
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
    # Rate and margin of the step that the line tells of: of the images before it.
    assert [line["lr"] for line in lines] == [0.1 / (1 + n) for n in (12, 20, 28, 40)]
    assert [line["margin_fraction"] for line in lines] == [0.12, 0.20, 0.28, 0.40]
    assert made.saved == [6, 11]
    assert made.progress.step == 11 and made.progress.images == 44
    assert lines[-1]["eta_s"] == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == [f"step {n}/11" for n in (4, 6, 8, 11)]


def test_loss_is_the_mean_since_the_last_line_and_falls(make_loop, tmp_path):
    made = make_loop(Source(), 40, lr=0.2, log_every=20)
    made.loop.run()
    first, last = (line["loss"] for line in metrics(tmp_path))
    assert last < first
    assert made.loop.totals.final_loss == last
    assert made.loop.totals.images == 160
    assert first < 2 * np.log(PEOPLE)


def test_same_seed_same_weights_whatever_is_logged(make_loop, tmp_path):
    weights = []
    for log_every in (3, 5):
        made = make_loop(Source(), 10, log_every=log_every)
        made.loop.run()
        weights.append([p.data().asnumpy() for p in made.parameters.values()])
    assert all((a == b).all() for a, b in zip(*weights))


def test_position_is_that_of_the_last_batch_used(make_loop):
    seen = []
    made = make_loop(Source(), 7, checkpoint_every=3)
    made.loop.save = lambda: seen.append((made.progress.epoch, made.progress.consumed))
    made.loop.run()
    # One batch was taken beforehand, to see its size.
    assert seen == [(0, 4 * BATCH), (0, 7 * BATCH), (0, 8 * BATCH)]


def test_verification_when_due_and_at_the_end(make_loop, tmp_path, capsys):
    result = {
        "accuracy": 0.75,
        "accuracy_std": 0.1,
        "tar_at_far_1e-3": None,
        "xnorm": 3.0,
        "pairs": 40,
    }
    at = []

    def verify():
        at.append(made.progress.step)
        return {"tiny": result}

    made = make_loop(Source(), 7, verify=verify, verify_every=3, log_every=100)
    made.loop.run()
    assert at == [3, 6, 7]
    assert made.loop.verification == {"tiny": result}
    verified = [line for line in metrics(tmp_path) if "verification/tiny/accuracy" in line]
    assert [line["step"] for line in verified] == [3, 6, 7]
    assert verified[0]["verification/tiny/xnorm"] == 3.0
    assert "verify tiny: accuracy 0.7500 +- 0.1000" in capsys.readouterr().out


def test_loss_that_is_not_finite_names_its_step(make_loop):
    def act(number):
        return mx.nd.full((BATCH, 3, 16, 16), float("nan")) if number == 8 else None

    made = make_loop(Source(act), 30, log_every=5, checkpoint_every=5)
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "the loss of step 8 is not finite, got nan; the last good checkpoint (step 5) is kept, "
        "begin anew (run.resume=false) with a lower optim.lr, a longer optim.warmup or "
        "train.margin_warmup, or with optim.clip_norm"
    )
    assert not caught.value.usage
    assert made.progress.step == 10 and made.saved == [5]


def test_weights_that_are_not_finite_are_not_saved(make_loop):
    made = make_loop(Source(), 4, log_every=4)
    weight = made.parameters["head.weight"]
    with_nan = weight.data().asnumpy()
    with_nan[PEOPLE - 1] = np.nan
    # Behind the last loss: the update of the last step is seen by no forward pass.
    log = made.loop._log
    made.loop._log = lambda: (log(), weight.set_data(mx.nd.array(with_nan)))
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "the weights after step 4 are not finite, got NaN or infinity; the last good checkpoint "
        "(none yet) is kept, begin anew (run.resume=false) with a lower optim.lr, a longer "
        "optim.warmup or train.margin_warmup, or with optim.clip_norm"
    )
    assert made.saved == []


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_trouble_with_data_leaves_at_the_next_comparison(make_loop, error, tmp_path):
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
    assert made.progress.step == 10  # the last good batch was fed until then
    assert calls == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in metrics(tmp_path)] == [5]


def test_a_run_that_lacks_its_last_verification_alone_gets_it(make_loop, tmp_path):
    progress, at = Progress(step=3, images=3 * BATCH), []

    def verify():
        at.append(progress.step)
        return {}

    made = make_loop(Source(), 3, progress=progress, verify=verify)
    made.loop.run()
    assert at == [3] and made.saved == [] and made.progress.step == 3
    assert "loss" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_set_that_cannot_be_scored_ends_the_run(make_loop):
    def verify():
        raise ValueError("tiny: the embedding of image 0 is zero")

    made = make_loop(Source(), 2, verify=verify)
    with pytest.raises(TrainingError, match=r"^verification: tiny: the embedding") as caught:
        made.loop.run()
    assert caught.value.usage and made.saved == [2]


def test_epochs_count_those_without_a_whole_step_left(make_loop):
    made = make_loop(Source(), 2)
    made.loop.run()
    assert made.loop.epochs == 0
    made.progress.consumed = made.loop.loader.images_per_epoch - BATCH + 1
    assert made.loop.epochs == 1


def test_embeddings_that_are_not_finite_keep_the_checkpoint(make_loop):
    def act(number):
        if number == 7:  # a bag that is chosen from
            raise FloatingPointError("the embeddings of a bag are not finite, got NaN or infinity")

    made = make_loop(Source(act), 30, log_every=5, checkpoint_every=5)
    sentence = r"^the embeddings of a bag .*; the last good checkpoint \(step 5\) is kept"
    with pytest.raises(TrainingError, match=sentence) as caught:
        made.loop.run()
    assert not caught.value.usage and made.saved == [5]


def test_no_first_batch_no_step(make_loop):
    def act(number):
        raise ValueError("train.rec: nothing there")

    made = make_loop(Source(act), 30)
    with pytest.raises(TrainingError, match=r"^train\.rec: nothing there$"):
        made.loop.run()
    assert made.progress.step == 0


def test_a_checkpoint_that_cannot_be_written_ends_the_run(make_loop):
    def save():
        raise ValueError("step-00000004: the checkpoint cannot be written")

    made = make_loop(Source(), 30, log_every=2, checkpoint_every=4, save=save)
    with pytest.raises(TrainingError, match=r"^step-00000004: the checkpoint cannot") as caught:
        made.loop.run()
    assert caught.value.usage and made.progress.step == 4


def test_a_full_disk_under_the_metrics_ends_the_run(make_loop):
    made = make_loop(Source(), 30, log_every=2)

    def refuse(values):
        raise OSError(28, "No space left on device")

    made.loop.log.metrics = refuse
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "metrics.jsonl cannot be written, got No space left on device; make room"
    )
    assert caught.value.usage and made.progress.step == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_and_leaves(make_loop, monkeypatch, number):
    monkeypatch.setattr(consensus, "GRACE_S", 3600.0)  # however busy the machine is
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]

    def act(batch):
        if batch == 7:
            os.kill(os.getpid(), number)

    made = make_loop(Source(act), 30, log_every=5)
    with pytest.raises(Stopped) as caught:
        made.loop.run()
    assert str(caught.value) == (
        "stopped at step 10, saved at step 10; the same command goes on from there"
    )
    assert made.saved == [10] and made.progress.step == 10
    assert handlers == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]


def test_a_resumed_run_counts_on(make_loop, tmp_path, capsys):
    progress = Progress(step=6, images=6 * BATCH, epoch=0, consumed=6 * BATCH)
    made = make_loop(Source(), 10, log_every=5, progress=progress)
    made.loop.run()
    assert [line["step"] for line in metrics(tmp_path)] == [10]
    assert made.saved == [10] and made.progress.images == 10 * BATCH
    assert capsys.readouterr().out.startswith("step 10/10 ")


def test_the_generator_is_seeded_anew_at_every_checkpoint(make_loop):
    draws = []
    for before in (0, 5):  # how much was drawn before must not matter
        made = make_loop(Source(), 4, checkpoint_every=2)
        mx.nd.random.uniform(shape=(before + 1,)).wait_to_read()
        made.loop.run()
        draws.append(mx.nd.random.uniform(shape=(3,)).asnumpy())
    reseed(1, 4, 0)
    expected = mx.nd.random.uniform(shape=(3,)).asnumpy()
    assert (draws[0] == expected).all() and (draws[1] == expected).all()


class Machine:
    """Time that passes where somebody sleeps or waits for the device; stands in for ``time``."""

    def __init__(self):
        self.now, self.ends = 100.0, [0.0]  # of the steps on the device, which take some time each

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, steps_ahead: int) -> None:
        """Wait until so many steps at most are under way."""
        if len(self.ends) > steps_ahead:
            self.now = max(self.now, self.ends[-1 - steps_ahead])


class MachinesClock:
    """A DeviceClock for the device of a `Machine`."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def step(self, weight) -> None:
        machine = self.machine
        machine.ends.append(max(machine.now, machine.ends[-1]) + DEVICE_SECONDS)
        machine.wait(2)  # as the loop does

    def starved(self, asked: float, got: float) -> float:
        return max(0.0, got - max(asked, self.machine.ends[-1]))

    def close(self) -> None:
        pass


DEVICE_SECONDS = 0.06


def run_with_sleeps(make_loop, monkeypatch, folder, seconds, each):
    """Run quick and slowed intervals of ``each`` steps by turns; return what their lines say.

    That is (seconds per step, data_wait_fraction).  The first interval of each is left out.
    """
    machine = Machine()

    def act(number):
        # Batch n + 1 is asked for in the interval of step n, the first one before any interval.
        if number >= 2 and (number - 2) // each % 2:
            machine.sleep(seconds)

    monkeypatch.setattr(loop_module, "time", machine)
    monkeypatch.setattr(loop_module, "DeviceClock", lambda: MachinesClock(machine))
    # The last step asks for no batch, so one interval more ends the run.
    made = make_loop(Source(act), each * 9, log_every=each)
    log = made.loop._log

    def after_the_device():
        machine.wait(0)  # for the losses
        log()

    made.loop._log = after_the_device
    made.loop.run()
    found = [
        (BATCH / line["images_per_second"], line["data_wait_fraction"])
        for line in metrics(folder)[2:8]
    ]
    return found[0::2], found[1::2], made.loop.totals


def test_data_wait_fraction_is_the_share_that_waiting_costs(make_loop, monkeypatch, tmp_path):
    quick, slowed, totals = run_with_sleeps(make_loop, monkeypatch, tmp_path, 0.4, each=1)
    assert quick == [(pytest.approx(DEVICE_SECONDS), 0)] * 3
    # Counting the whole sleep, beside which the device still works, would be 1.
    assert slowed == [(pytest.approx(0.4), pytest.approx(1 - DEVICE_SECONDS / 0.4))] * 3
    waited, worked = 4 * (0.4 - DEVICE_SECONDS), 9 * DEVICE_SECONDS
    assert totals.data_wait_fraction == pytest.approx(waited / (waited + worked))


def test_waiting_that_the_device_does_not_notice_costs_nothing(make_loop, monkeypatch, tmp_path):
    seconds = DEVICE_SECONDS / 4
    _, slowed, _ = run_with_sleeps(make_loop, monkeypatch, tmp_path, seconds, each=4)
    assert slowed == [(pytest.approx(DEVICE_SECONDS), 0)] * 3


class GatedNet(mx.gluon.Block):
    """A net with which the device is not done before the gate is open."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image):
        return gated(self.net(image))


def test_waiting_beside_a_step_that_the_device_still_computes_is_free(make_loop, tmp_path):
    OPEN.clear()
    made = make_loop(Source(lambda number: time.sleep(0.01)), 6, log_every=1)
    made.loop.model = replace(made.loop.model, net=GatedNet(made.loop.model.net))
    log = made.loop._log

    def when_the_device_is_done():
        OPEN.set()
        log()
        OPEN.clear()

    made.loop._log = when_the_device_is_done
    try:
        made.loop.run()
    finally:
        OPEN.set()
    # To the last digit: no update of the weights was done while a batch was waited for.
    assert [line["data_wait_fraction"] for line in metrics(tmp_path)] == [0] * 6


DALI = """Critical error in pipeline:
CUDA runtime API error cudaErrorMemoryAllocation (2):
out of memory
Stacktrace (2 entries):
[frame 0]: /opt/libdali.so(+0x4c81c2) [0x7f]
Current pipeline object is no longer valid.
"""
MXNET = """Traceback (most recent call last):
  File "../src/storage/./pooled_storage_manager.h", line 188
MXNetError: cudaMalloc retry failed: out of memory"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(DALI),
            "RuntimeError: Critical error in pipeline: CUDA runtime API error "
            "cudaErrorMemoryAllocation (2): out of memory",
        ),
        (mx.base.MXNetError(MXNET), "MXNetError: cudaMalloc retry failed: out of memory"),
        (RuntimeError(), "RuntimeError: no message"),
    ],
)
def test_a_loader_that_fails_ends_the_run_with_a_sentence(make_loop, error, said):
    def act(number):
        if number == 4:
            raise error

    made = make_loop(Source(act), 20, log_every=5)
    with pytest.raises(TrainingError) as caught:
        made.loop.run()
    assert str(caught.value) == (
        f"the loader failed, got {said}; use a smaller data.batch_size if memory is full, or "
        "data.decode=native, which decodes on the CPU"
    )
    assert caught.value.usage
    assert made.progress.step == 5  # with the other ranks, when the next line is due

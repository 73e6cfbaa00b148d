# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: atomic writes, refusal of damaged or different ones, bitwise resume."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import normalization
from heads import build_head
from launch.ranks.comm import Comm
from training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    open_checkpoint,
    save_checkpoint,
)
from training.step import Model, build_optimizer, collect_parameters, train_step

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, EMBEDDING = 5, 4
META = {"net": {"name": "small", "width": 1.0}, "image_size": [8, 8]}


def build(seed, momentum=0.9, hidden=6, people=PEOPLE, name="sgd"):
    """Return net, head, their parameters and a trainer."""
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(hidden, 3, strides=2, in_channels=3), nn.BatchNorm(in_channels=hidden))
    net.add(nn.PReLU(in_channels=hidden), nn.Dense(EMBEDDING, in_units=hidden * 9))
    head = build_head("cosface", people, EMBEDDING, scale=8.0)
    for block in (net, head):
        block.initialize(mx.init.Xavier())
        block.hybridize(static_alloc=True, static_shape=True)
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(parameters, name, 0.1, momentum, 1e-3)
    trainer = Comm().trainer(parameters, optimizer)
    return Model(net, head, trainer, parameters)


def train(parts, steps):
    random = np.random.default_rng(steps)
    for _ in range(steps):
        image = mx.nd.array(random.normal(size=(6, 3, 8, 8)))
        label = mx.nd.array(random.integers(0, PEOPLE, 6))
        train_step(parts.net, parts.head, parts.trainer, image, label, mx.nd.ones((1,)))


def save(parts, parent, step, keep=3, **state):
    state = {"progress": {"step": step}, "meta": META, **state}
    return save_checkpoint(parent, step, parts, state=state, keep=keep)


def load(checkpoint, parts):
    checkpoint.load_net_parameters(parts.net)
    checkpoint.load_head_parameters(parts.head)
    checkpoint.load_momentum(parts)


def bits(parts):
    return {name: p.data().asnumpy().tobytes() for name, p in parts.parameters.items()}


def names(parent):
    return sorted(path.name for path in parent.iterdir())


@pytest.fixture
def parts():
    made = build(seed=1)
    train(made, 2)
    return made


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.9), ("nag", 0.5), ("sgd", 0.0)])
def test_a_resumed_run_is_bitwise_equal(tmp_path, name, momentum):
    first = build(seed=1, name=name, momentum=momentum)
    train(first, 3)
    folder = save(first, tmp_path, 3)
    second = build(seed=2, name=name, momentum=momentum)
    assert bits(second) != bits(first)
    load(open_checkpoint(folder), second)
    assert bits(second) == bits(first)
    train(first, 4)
    train(second, 4)
    assert bits(second) == bits(first)


def test_momentum_matters(tmp_path, parts):
    folder = save(parts, tmp_path, 2)
    cold = build(seed=2)
    checkpoint = open_checkpoint(folder)
    checkpoint.load_net_parameters(cold.net)
    checkpoint.load_head_parameters(cold.head)
    train(parts, 1)
    train(cold, 1)
    assert bits(cold) != bits(parts)


def test_the_state_is_restored(tmp_path, parts):
    folder = save(parts, tmp_path, 20, ranks=2)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.state == {"progress": {"step": 20}, "meta": META, "ranks": 2}
    assert checkpoint.meta == META and checkpoint.folder == folder
    assert folder == tmp_path / "step-00000020"


def test_files_hold_parameters_by_name_and_no_pickle(tmp_path, parts, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("pickle is used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    folder = save(parts, tmp_path, 2)
    load(open_checkpoint(folder), build(seed=2))
    assert names(folder) == [
        "head.params",
        "manifest.json",
        "momentum.params",
        "net.params",
        "state.json",
    ]
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    arrays = {path.stem: mx.nd.load(str(path)) for path in folder.glob("*.params")}
    assert arrays["net"].keys() == parts.net._collect_params_with_prefix().keys()
    assert arrays["head"].keys() == {"weight"}
    trained = {name for name, p in parts.parameters.items() if p.grad_req != "null"}
    assert arrays["momentum"].keys() == trained
    assert "net.1.running_mean" not in trained and "net.1.running_mean" in parts.parameters


def test_only_the_newest_checkpoints_stay(tmp_path, parts):
    for step in (5, 10, 15, 100):
        save(parts, tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000015", "step-00000100"]
    assert latest_checkpoint(tmp_path).state["progress"]["step"] == 100
    save(parts, tmp_path, 101, keep=1)
    assert names(tmp_path) == ["step-00000101"]


def test_a_repeated_step_replaces_its_checkpoint(tmp_path, parts):
    save(parts, tmp_path, 5)
    train(parts, 1)
    folder = save(parts, tmp_path, 5)
    other = build(seed=2)
    load(open_checkpoint(folder), other)
    assert bits(other) == bits(parts)
    assert names(tmp_path) == ["step-00000005"]


@pytest.mark.parametrize("name", ["net.params", "head.params", "momentum.params", "state.json"])
def test_a_damaged_file_is_refused_and_an_older_checkpoint_used(tmp_path, parts, name):
    older, newer = save(parts, tmp_path, 5), save(parts, tmp_path, 10)
    content = bytearray((newer / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newer / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(newer)
    fault = (
        f"{newer / name}: has changed since it was saved, got a size or SHA-256 that differs from "
        "manifest.json"
    )
    assert str(caught.value) == f"{fault}; use another checkpoint"
    for newest in (latest_checkpoint(tmp_path), open_checkpoint(tmp_path)):
        assert newest.folder == older and newest.damaged == (fault,)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_damaged_during_the_run_does_not_count(tmp_path, parts):
    folders = [save(parts, tmp_path, step, keep=2) for step in (5, 10)]
    flip(folders[1] / "state.json")
    save(parts, tmp_path, 15, keep=2)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (5, 10, 15)]


def test_an_unreadable_parent_is_refused(tmp_path, monkeypatch):
    def failing(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "listdir", failing)
    assert refusal(latest_checkpoint, tmp_path) == (
        f"{tmp_path}: cannot be read, got Input/output error (errno 5); nothing was changed, run "
        "the same command again when the file is readable"
    )


def test_a_run_folder_opens_its_newest_checkpoint(tmp_path, parts):
    folder = save(parts, tmp_path / "run" / "checkpoints", 5)
    for place in (folder, folder.parent, folder.parent.parent):
        assert open_checkpoint(place).folder == folder
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "other")
    assert str(caught.value) == (
        f"{tmp_path / 'other'}: no checkpoint found, got a folder without manifest.json and "
        "without step-*/manifest.json; pass a run folder, or a folder checkpoints/step-* of a run"
    )


def refusal(act, *arguments):
    with pytest.raises(CheckpointError) as caught:
        act(*arguments)
    return str(caught.value)


CURE = "use the configuration with which the checkpoint was trained"


def test_another_net_is_refused_by_parameter_name(tmp_path, parts):
    checkpoint = open_checkpoint(save(parts, tmp_path, 5))
    path = checkpoint.folder / "net.params"
    wider = build(seed=2, hidden=7)
    before = bits(wider)
    assert refusal(checkpoint.load_net_parameters, wider.net) == (
        f"{path}: does not fit this net, whose parameter '0.bias' has shape (7,), "
        f"got shape (6,); {CURE}"
    )
    assert bits(wider) == before
    deeper = build(seed=2).net
    deeper.add(nn.Dense(4, in_units=4))
    assert refusal(checkpoint.load_net_parameters, deeper) == (
        f"{path}: does not fit this net, got no parameter '4.bias'; {CURE}"
    )
    shorter = nn.HybridSequential()
    shorter.add(*(build(seed=2).net[i] for i in range(3)))
    assert refusal(checkpoint.load_net_parameters, shorter) == (
        f"{path}: does not fit this net, got the parameter '3.bias', which this net lacks; {CURE}"
    )


def test_a_head_with_other_classes_is_refused(tmp_path, parts):
    checkpoint = open_checkpoint(save(parts, tmp_path, 5))
    other = build(seed=2, people=9)
    assert refusal(checkpoint.load_head_parameters, other.head) == (
        f"{checkpoint.folder / 'head.params'}: does not fit this head, whose parameter 'weight' "
        f"has shape (9, 4), got shape (5, 4); {CURE}"
    )


def test_a_folder_that_cannot_be_created_is_refused(tmp_path, parts):
    (tmp_path / "file").write_text("")
    parent = tmp_path / "file" / "checkpoints"
    assert refusal(save, parts, parent, 5) == (
        f"{parent / 'step-00000005'}: the checkpoint cannot be written, got Not a directory; no "
        "checkpoint is valid, free disk space and run the same command again"
    )


FULL_DISK = """
import resource, runpy, sys
from pathlib import Path
here = runpy.run_path(sys.argv[1])
parts = here["build"](seed=1, hidden=64)
here["train"](parts, 1)
parent = Path(sys.argv[2])
here["save"](parts, parent, 5)
for limit in map(int, sys.argv[3:]):  # maximum bytes per file: plays a disk that fills up
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        here["save"](parts, parent, 10)
    except here["CheckpointError"] as error:
        print(error)
"""


def test_a_full_disk_leaves_earlier_checkpoints_unchanged(tmp_path, parts):
    limits = [0, 100, 5000]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, __file__, str(tmp_path), *map(str, limits)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sentences = done.stdout.splitlines()
    assert len(sentences) == len(limits)
    for sentence in sentences:
        assert sentence.startswith(
            f"{tmp_path / 'step-00000010'}: the checkpoint cannot be written, got "
        )
        assert sentence.endswith(
            "; the last valid checkpoint is step-00000005, free disk space and run the same "
            "command again"
        )
    assert names(tmp_path) == ["step-00000005"]
    assert latest_checkpoint(tmp_path).state["progress"]["step"] == 5


class WithVelocity(mx.gluon.HybridBlock):
    """Head that updates its own class centres on a device."""

    def __init__(self, ctx):
        super().__init__()
        self.weight = self.params.get("weight", shape=(2, 3), grad_req="null")
        self.initialize(ctx=ctx)
        self.momentum = {"weight": mx.nd.full((2, 3), 7.0, ctx=ctx)}


def test_the_checkpoint_stores_mean_and_std(tmp_path):
    parts = build(1)
    old = open_checkpoint(save(parts, tmp_path, 1))  # without mean and std
    assert (old.mean, old.std) == (normalization.MEAN, normalization.STD) == (127.5, 128.0)
    other = save(parts, tmp_path, 2, meta={**META, "mean": 100.0, "std": 50.0})
    assert (open_checkpoint(other).mean, open_checkpoint(other).std) == (100.0, 50.0)


def test_arrays_are_saved_without_their_device(tmp_path, monkeypatch):
    # The second CPU plays a GPU.
    device, seen = mx.cpu(1), {}
    mx.random.seed(1)
    net = nn.Dense(2, in_units=3)
    net.initialize(ctx=device)
    head = WithVelocity(device)
    parameters = collect_parameters(net, head)
    trainer = Comm().trainer(parameters, build_optimizer(parameters, "sgd", 0.1, 0.9, 0.0))
    with mx.autograd.record():
        loss = net(mx.nd.ones((1, 3), ctx=device)).sum()
    loss.backward()
    trainer.step(1)
    write = mx.nd.save
    monkeypatch.setattr(
        mx.nd, "save", lambda path, arrays: (seen.update(arrays), write(path, arrays))
    )
    made = Model(net, head, trainer, parameters)
    folder = save(made, tmp_path, 1)
    assert {array.context for array in seen.values()} == {mx.cpu(0)}
    assert "head.weight" in mx.nd.load(str(folder / "momentum.params"))
    # Loading restores the momentum on the device of the head.
    head.momentum["weight"][:] = 0
    open_checkpoint(folder).load_momentum(made)
    assert head.momentum["weight"].context == device
    assert (head.momentum["weight"].asnumpy() == 7).all()

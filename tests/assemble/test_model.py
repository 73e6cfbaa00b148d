# SPDX-License-Identifier: Apache-2.0
"""Net, head and trainer: initial, resumed and pretrained weights, and verification."""

from __future__ import annotations

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

import normalization
import ops
from assemble import model as module
from assemble.inputs import open_inputs
from assemble.model import make_model, make_verify
from evaluation.pairs import read_pairs
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from tests.assemble.configuration import make_synthetic
from training.checkpoint import open_checkpoint, save_checkpoint
from training.run import Progress, reseed
from training.step import train_step


def new_run(step=0, checkpoint=None):
    return SimpleNamespace(progress=Progress(step=step), checkpoint=checkpoint)


def make(*overrides, run=None, comm=Comm()):
    config = make_synthetic(*overrides)
    return make_model(config, open_inputs(config, comm), run or new_run(), comm)


def weights(model):
    return {name: p.data().asnumpy() for name, p in model.parameters.items()}


def same(first, second, names=None):
    return all(np.array_equal(first[name], second[name]) for name in names or first)


def train(model):
    train_step(
        *(model.net, model.head, model.trainer),
        image=mx.nd.random.uniform(shape=(4, 3, 112, 112)),
        label=mx.nd.arange(4),
        margin_fraction=mx.nd.ones((1,)),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a model that was trained for one step, and its checkpoint's folder."""
    ops.use("plain")
    model, _ = make()
    train(model)
    state = {"meta": {"net": {"name": "mobilefacenet"}, "image_size": [112, 112]}}
    folder = tmp_path_factory.mktemp("run")
    return model, save_checkpoint(folder, 1, model, state=state, keep=1)


def test_initial_weights_depend_on_the_seed_only():
    first, notice = make()
    mx.nd.random.uniform(shape=(5,)).wait_to_read()
    assert notice == "" and same(weights(first), weights(make(comm=Comm(1, 2, 1, 2))[0]))
    assert not same(weights(first), weights(make("run.seed=2")[0]))
    assert {name.split(".")[0] for name in first.parameters} == {"net", "head"}
    assert first.parameters["head.weight"].shape == (10, 16)


def test_the_generator_is_seeded_from_the_step():
    make(run=new_run(step=7), comm=Comm(1, 2, 1, 2))
    drawn = mx.nd.random.uniform(shape=(4,)).asnumpy()
    reseed(1, 7, 1)
    assert (mx.nd.random.uniform(shape=(4,)).asnumpy() == drawn).all()


def test_the_optimizer_follows_the_configuration():
    model, _ = make("optim.name=nag", "optim.lr=0.3", "optim.momentum=0.7")
    optimizer = model.trainer._optimizer
    assert type(optimizer).__name__ == "NAG"
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.wd) == (0.3, 0.7, 5e-4)


def test_a_checkpoint_restores_weights_and_momentum(saved):
    trained, folder = saved
    model, notice = make(run=new_run(1, open_checkpoint(folder)))
    assert notice == "" and same(weights(model), weights(trained))
    for one in (trained, model):
        mx.random.seed(5)
        train(one)
    assert same(weights(model), weights(trained))


def test_pretrained_weights_are_loaded_where_shapes_match(saved):
    trained, folder = open_checkpoint(saved[1]), saved[1]
    model, notice = make(f"train.pretrained={folder}")
    assert notice == f"the run starts from the weights of {folder}"
    expected = mx.nd.load(str(trained.folder / "head.params"))
    assert (weights(model)["head.weight"] == expected["weight"].asnumpy()).all()
    model, notice = make(f"train.pretrained={folder}", "data.num_classes=11")
    assert (
        notice
        == f"the run starts from the weights of {folder}; initialised randomly: weight (head)"
    )
    first = next(name for name in model.parameters if name.endswith("weight"))
    stored = mx.nd.load(str(trained.folder / "net.params"))
    assert (weights(model)[first] == stored[first.removeprefix("net.")].asnumpy()).all()


def test_a_damaged_newer_checkpoint_is_reported(saved, tmp_path):
    model, _ = saved
    state = {"meta": {"net": {"name": "mobilefacenet"}, "image_size": [112, 112]}}
    for step in (1, 2):
        folder = save_checkpoint(tmp_path / "checkpoints", step, model, state=state, keep=2)
    (folder / "net.params").write_bytes(b"")
    _, notice = make(f"train.pretrained={tmp_path}")
    assert "step-00000001; skipped: " in notice and "step-00000002" in notice


@pytest.mark.parametrize("overrides", [["head.name=n_pair"], []])  # the operators are plain
def test_unavailable_fused_centres_are_refused(overrides):
    with pytest.raises(Refused, match=r"^optim\.fused_centres: "):
        make("optim.fused_centres=true", *overrides)


def test_verification_receives_the_options_of_the_configuration(tiny_records, monkeypatch):
    config = make_synthetic("eval.batch_size=3")
    inputs = open_inputs(config, Comm())
    assert make_verify(config, inputs, None, Comm()) is None
    seen = {}

    def evaluate(net, sets, **options):
        seen.update(options, net=net, sets=sets)
        return {"tiny": {}}

    monkeypatch.setattr(module, "evaluate_sets", evaluate)
    sets, comm = {"tiny": read_pairs(tiny_records / "tiny.bin")}, Comm(1, 2, 1, 2)
    given = SimpleNamespace(sets=sets, ctx=mx.cpu(), image_size=(112, 112))
    verify = make_verify(config, given, SimpleNamespace(net="net"), comm)
    assert verify() == {"tiny": {}}
    assert seen == {
        "net": "net",
        "sets": sets,
        "mean": normalization.MEAN,
        "std": normalization.STD,
        "batch_size": 3,
        "ctx": mx.cpu(),
        "image_size": (112, 112),
        "rank": 1,
        "size": 2,
        "gather": comm.gather,
        "cut_off": None,  # plain operators
    }

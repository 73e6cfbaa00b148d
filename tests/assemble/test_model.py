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
from assemble import pretrained as module_pretrained
from assemble.inputs import open_inputs
from assemble.model import make_model, make_verify
from assemble.pretrained import open_pretrained
from evaluation.pairs import read_pairs
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from tests.assemble.configuration import make_synthetic
from training.checkpoint import open_checkpoint, save_checkpoint
from training.run import Progress, reseed
from training.step import train_step

META = {
    "net": {"name": "mobilefacenet", "width": 0.125, "embedding_size": 16},
    "image_size": [112, 112],
    "num_classes": 10,
}


def new_run(step=0, checkpoint=None):
    return SimpleNamespace(progress=Progress(step=step), checkpoint=checkpoint)


def make(*overrides, run=None, comm=Comm()):
    config, pretrained = open_pretrained(make_synthetic(*overrides), comm)
    return make_model(config, open_inputs(config, comm, pretrained), run or new_run(), comm)


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
    state = {"meta": META}
    folder = tmp_path_factory.mktemp("run")
    return model, save_checkpoint(folder, 1, model, state=state, keep=1)


def test_initial_weights_depend_on_the_seed_only():
    first, notice = make()
    mx.nd.random.uniform(shape=(5,)).wait_to_read()
    assert notice == [] and same(weights(first), weights(make(comm=Comm(1, 2, 1, 2))[0]))
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
    assert notice == [] and same(weights(model), weights(trained))
    for one in (trained, model):
        mx.random.seed(5)
        train(one)
    assert same(weights(model), weights(trained))


ASSUMED = (
    "(the model does not record its classes, so class k of the model is assumed to be class k of "
    "the training set; if that is wrong, set train.class_centres=none)"
)


def test_pretrained_weights_are_loaded_where_shapes_match(saved):
    trained, folder = open_checkpoint(saved[1]), saved[1]
    start = f"the run starts from the weights of {folder}; class centres taken over: "
    model, notices = make(f"train.pretrained={folder}")
    assert notices == [f"{start}10 of 10 {ASSUMED}"]
    expected = mx.nd.load(str(trained.folder / "head.params"))
    assert (weights(model)["head.weight"] == expected["weight"].asnumpy()).all()
    model, notices = make(f"train.pretrained={folder}", "data.num_classes=11")
    reason = "the model has 10 classes and does not record which people they are"
    assert notices == [f"{start}0 of 11 ({reason})"]
    random = weights(make("data.num_classes=11")[0])["head.weight"]
    assert (weights(model)["head.weight"] == random).all()
    stored = mx.nd.load(str(trained.folder / "net.params"))
    loaded = weights(model)
    assert all((loaded[f"net.{n}"] == array.asnumpy()).all() for n, array in stored.items())


@pytest.mark.parametrize("rate", ["1", "0.5"])
def test_a_sharded_head_starts_from_the_class_centres_of_a_model(saved, rate):
    sharded = (f"train.pretrained={saved[1]}", "head.sharded=true", f"head.sample_rate={rate}")
    model, notices = make(*sharded)
    assert notices[0].endswith(f"class centres taken over: 10 of 10 {ASSUMED}")
    expected = mx.nd.load(str(saved[1] / "head.params"))["weight"].asnumpy()
    assert (weights(model)["head.weight"] == expected).all()
    model, notices = make(*sharded, "train.class_centres=none")
    assert notices[0].endswith("class centres taken over: 0 of 10 (train.class_centres=none)")
    assert (weights(model)["head.weight"] == weights(make()[0])["head.weight"]).all()


def test_a_head_without_a_counterpart_is_drawn_at_random(saved):
    _, notices = make(f"train.pretrained={saved[1]}", "head.name=adacos")
    assert notices[0].endswith("; initialised randomly: scale (head)")
    _, notices = make(f"train.pretrained={saved[1]}", "head.name=n_pair")
    assert notices == [f"the run starts from the weights of {saved[1]}"]


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_loads_the_pretrained_weights(saved, rank):
    given = module_pretrained._facts(module_pretrained.open_model(saved[1]))

    class Second(Comm):
        """Rank ``rank`` of two; rank 1 has no facts of the model and gets those of rank 0."""

        def gather_json(self, value):
            return [given if value == {} else value, value]

    model, notices = make(f"train.pretrained={saved[1]}", comm=Second(rank, 2, rank, 2))
    first = weights(model)["net.stem.conv.weight"]
    assert bool(notices) == (rank == 0)
    stored = mx.nd.load(str(saved[1] / "net.params"))["stem.conv.weight"].asnumpy()
    assert (first == stored).all() == (rank == 0)


def test_a_damaged_newer_checkpoint_is_reported(saved, tmp_path):
    model, _ = saved
    state = {"meta": META}
    for step in (1, 2):
        folder = save_checkpoint(tmp_path / "checkpoints", step, model, state=state, keep=2)
    (folder / "net.params").write_bytes(b"")
    _, notices = make(f"train.pretrained={tmp_path}")
    assert notices[0].startswith(f"the run starts from the weights of {tmp_path}/checkpoints/step-")
    assert "step-00000001" in notices[0] and "step-00000002" in notices[1]


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

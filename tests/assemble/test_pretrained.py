# SPDX-License-Identifier: Apache-2.0
"""A run starts from a model: net settings, fit, refusals, and a resume without the model file."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

import ops
from assemble import pretrained as module
from assemble.inputs import open_inputs
from assemble.model import make_model
from assemble.pretrained import open_pretrained
from assemble.run import Checkpointer, open_run
from heads import HEADS
from interchange.open_model import open_model
from interchange.write_checkpoint import write_checkpoint
from interchange.write_symbol import write_symbol
from launch.config.cli import apply_overrides
from launch.config.configuration import build_config
from launch.ranks.agreement import Refused, agree
from launch.ranks.comm import Comm
from nets import NETS
from tests.assemble.configuration import SMALL, SYNTHETIC
from training.step import train_step

OWN_NET = {"name": "mobilefacenet", "width": 0.125, "embedding_size": 16}
USUAL = {"blocks": [1, 4, 6, 2], "scale": 1, "se": False, "output": "GDC", "dropout": 0.0}
FULL_NET = {**OWN_NET, **USUAL}


def configure(*overrides, net=OWN_NET, synthetic=True):
    raw = {**SMALL, "net": dict(net)}
    return build_config(
        apply_overrides(raw, [*(SYNTHETIC if synthetic else ()), *overrides]), NETS, HEADS
    )


def start(config, steps=1, comm=Comm()):
    """Build a run until its model, save a checkpoint, and return (config, run, model, notices)."""
    config, pretrained = open_pretrained(config, comm)
    with ExitStack() as at_end:
        inputs = agree(comm, lambda: open_inputs(config, comm, pretrained))
        run = open_run(config, inputs, comm, at_end)
        model, notices = make_model(config, inputs, run, comm)
        run.progress.step += steps
        run.progress.images += 4 * steps
        Checkpointer(config, inputs, run, model, comm=Comm()).save()
    return config, run, model, notices


def weights(model):
    return {name: p.data().asnumpy() for name, p in model.parameters.items()}


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the folder of an unfinished run and the weights of its checkpoint."""
    ops.use("plain")
    folder = tmp_path_factory.mktemp("source")
    _, run, model, _ = start(configure(f"run.dir={folder}", "run.seed=5"))
    return run.folder, weights(model)


@pytest.fixture
def begin(tmp_path, source):
    """Return ``begin(*overrides, net={})``, which starts or resumes a run from the source."""

    def make(*overrides, net=(), model=source[0], **options):
        given = [f"train.pretrained={model}", f"run.dir={tmp_path / 'runs'}", *overrides]
        return start(configure(*given, net=dict(net), **options))

    return make


def refusal(begin, *overrides, **options):
    with pytest.raises(Refused) as caught:
        begin(*overrides, **options)
    return str(caught.value)


@pytest.mark.parametrize("net", [{}, {"name": ""}, {"embedding_size": 16}, {"name": "y1"}, OWN_NET])
def test_keys_that_are_not_set_have_the_values_of_the_model(begin, source, net):
    config, run, model, notices = begin(net=net)
    assert config.to_dict()["net"] == FULL_NET
    assert same(weights(model), source[1])
    assert "width: 0.125" in (run.folder / "config.yaml").read_text()
    assert notices[0].startswith(f"the run starts from the weights of {source[0]}/checkpoints/")


@pytest.mark.parametrize(
    ("net", "got"),
    [
        ({"width": 0.25}, "net.width=0.25"),
        ({"name": "mobilefacenet", "width": 1}, "net.name=mobilefacenet net.width=1.0"),
        ({**OWN_NET, "embedding_size": 32}, "net.name=mobilefacenet net.embedding_size=32"),
        ({"name": "iresnet18"}, "net.name=iresnet18"),
        ({"name": "iresnet18", "dropout": 0.4}, "net.name=iresnet18"),
    ],
)
def test_a_contradiction_is_refused_with_the_values_to_write(begin, tmp_path, source, net, got):
    sentence = refusal(begin, net=net)
    values = "net.name=mobilefacenet net.width=0.125 net.embedding_size=16"
    assert sentence == (
        f"train.pretrained: the net of {source[0]}/checkpoints/step-00000001 is {values}, got "
        f"{got}; write {values}, or remove these keys to use the net of the model"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("stored", "net", "is_taken"),
    [
        ({"name": "mobilenet_v1"}, {"name": "m05"}, False),
        ({"name": "m05"}, {"name": "mobilenet_v1"}, False),
        ({"name": "mnas05"}, {"name": "mnas025"}, False),
        ({"name": "mobilenet_v1"}, {"name": "m05", "width": 1}, True),
        ({"name": "mobilenet_v1", "width": 0.5}, {"name": "m05"}, True),
        ({"name": "mobilenet_v1"}, {"name": "m1"}, True),
        ({"name": "m05"}, {"name": "m05"}, True),
    ],
)
def test_a_short_name_with_another_width_by_default_means_that_width(stored, net, is_taken):
    model = module.Pretrained(
        source="a model", net=stored, image_size=(112, 112), shapes={}, head_shapes={}
    )
    config = configure(net=net)
    if is_taken:
        taken = module.take_net(config, model).net
        assert taken.name == stored["name"]
        assert taken.options["width"] == configure(net=stored).net.options["width"]
        return
    with pytest.raises(ValueError) as caught:
        module.take_net(config, model)
    assert f"the net of a model is net.name={stored['name']}" in str(caught.value)
    assert f"got net.name={net['name']} net.width=" in str(caught.value)


def test_a_list_to_write_is_quoted_for_the_shell(begin):
    sentence = refusal(begin, net={"blocks": [1, 1, 1, 1], "se": True})
    assert (
        "write net.name=mobilefacenet net.width=0.125 net.embedding_size=16 "
        "'net.blocks=[1,4,6,2]' net.se=false, or remove" in sentence
    )


def test_a_key_that_the_net_lacks_is_refused(begin):
    assert refusal(begin, net={"layer_dropout": 0.4}).startswith(
        "train.pretrained: the net of the model is 'mobilefacenet'; net.layer_dropout: unknown key"
    )


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["train.pretrained=nowhere"], "nowhere: no checkpoint found"),
        (["optim.lr_factors={stems: 1}"], "optim.lr_factors: must name layer groups, got 'stems'"),
        (
            ["train.class_centres=all", "data.num_classes=11"],
            "train.class_centres: 'all' needs equal numbers of classes, got 10 in the model and 11",
        ),
    ],
)
def test_an_invalid_start_leaves_no_run_folder(begin, tmp_path, overrides, sentence):
    assert refusal(begin, *overrides).startswith(sentence)
    assert not (tmp_path / "runs").exists()


def test_images_of_another_size_are_refused(make_records, tmp_path, source):
    records = make_records(3, 4, image_size=(64, 48))
    given = [f"data.records={records}", f"train.pretrained={source[0]}", f"run.dir={tmp_path}"]
    config, pretrained = open_pretrained(configure(*given, synthetic=False), Comm())
    with pytest.raises(ValueError) as caught:
        open_inputs(config, Comm(), pretrained)
    assert str(caught.value) == (
        f"{pretrained.source}: the net needs images of 112x112 pixels (height x width), got "
        "records with images of 64x48; align the images to 112x112, or use a model that was "
        "trained on images of 64x48"
    )


@pytest.mark.parametrize("change", ["missing", "reshaped", "foreign"])
def test_a_weight_that_does_not_fit_is_named(begin, monkeypatch, source, tmp_path, change):
    model = module.open_model(source[0])
    parameters = dict(model.parameters)
    array = parameters.pop("last.act.alpha")
    if change == "reshaped":
        parameters["last.act.alpha"] = array[:-1]
    if change == "foreign":
        parameters |= {"last.act.alpha": array, "extra": array}
    monkeypatch.setattr(module, "open_model", lambda path: replace(model, parameters=parameters))
    problem = {
        "missing": "'last.act.alpha' must have shape (64,), got no such weight;",
        "reshaped": "'last.act.alpha' must have shape (64,), got shape (63,);",
        "foreign": "'extra' is not in the net, got shape (64,);",
    }[change]
    assert (
        f": does not fit net.name=mobilefacenet net.width=0.125 net.embedding_size=16: {problem}"
        in (refusal(begin))
    )
    assert not (tmp_path / "runs").exists()


def test_an_unfinished_run_resumes_without_the_model_file(begin, tmp_path, source):
    moved = tmp_path / "moved"
    shutil.copytree(source[0], moved)
    factors = "optim.lr_factors={head: 2, stem: 0}"
    _, first, model, _ = begin(factors, model=moved)
    shutil.rmtree(moved)
    config, second, resumed, notices = begin(factors, model=moved)
    assert second.folder == first.folder and second.progress.step == 2
    assert same(weights(resumed), weights(model)) and config.to_dict()["net"] == FULL_NET
    assert [n.split(":")[0] for n in notices] == ["BatchNorm frozen", "learning rate factors"]
    assert "optim.lr_factors" in refusal(begin, "optim.lr_factors={head: 3}", model=moved)
    assert "net.width: 0.125 -> 0.25" in refusal(begin, factors, net={"width": 0.25}, model=moved)
    assert "net.name: 'mobilefacenet' -> 'iresnet18'" in refusal(
        begin, factors, net={"name": "iresnet18"}, model=moved
    )
    assert f"{moved}: no checkpoint found" in refusal(begin, "run.resume=false", model=moved)


def test_a_run_that_ends_while_another_starts_is_reported(begin, monkeypatch, source):
    monkeypatch.setattr(module, "unfinished_config", lambda *_: {"net": OWN_NET})
    assert refusal(begin).startswith("run.name: the unfinished run 'small' has ended while this ")


def test_factors_that_freeze_everything_are_refused(begin):
    groups = "stem stem_depthwise stages last embedding head".split()
    factors = ", ".join(f"{group}: 0" for group in groups)
    sentence = "optim.lr_factors: must leave a parameter to train, got factors that freeze all"
    assert refusal(begin, f"optim.lr_factors={{{factors}}}").startswith(sentence)


def test_frozen_batch_norm_and_factors_reach_the_model(begin):
    overrides = ["train.freeze_batch_norm=true", "optim.lr_factors={stages: 0.1, head: 10}"]
    _, _, model, notices = begin(*overrides)
    assert notices[0].startswith("BatchNorm frozen: ")
    assert notices[1].startswith("learning rate factors: stages 0.1 (")
    assert model.parameters["net.stages.0.0.expand.norm.gamma"].lr_mult == 0
    assert model.parameters["net.stem.norm.gamma"].grad_req == "null"
    assert model.parameters["net.stages.0.0.expand.conv.weight"].lr_mult == 0.1
    assert model.parameters["head.weight"].lr_mult == 10.0


def test_class_centres_follow_their_record_sets(make_records, tmp_path):
    first, second = make_records(3, 4), make_records(2, 5)

    def train(sets, *overrides):
        data = f"data.records=[{', '.join(map(str, sets))}]"
        given = [data, f"run.dir={tmp_path / 'runs'}", "run.resume=false", *overrides]
        return start(configure(*given, synthetic=False))

    _, run, old, _ = train([first])
    trained = mx.nd.random.normal(shape=(3, 16))
    old.parameters["head.weight"].set_data(trained)
    checkpointed = train([first], f"train.pretrained={run.folder}")
    assert "taken over: 3 of 3 (those of the record sets" in checkpointed[3][0]
    _, _, model, notices = train([second, first], f"train.pretrained={run.folder}")
    assert "class centres taken over: 3 of 5 (those of the record sets" in notices[0]
    stored = weights(checkpointed[2])["head.weight"]
    assert (weights(model)["head.weight"][2:] == stored).all()
    _, _, model, notices = train([second], f"train.pretrained={run.folder}")
    assert "class centres taken over: 0 of 2 (the model was trained on other" in notices[0]


def save_foreign(folder):
    """Save a small network that is none of ours, with random weights, as MXNet files."""
    x = (mx.sym.var("data") - 127.5) * (1 / 128)
    x = mx.sym.Convolution(x, kernel=(3, 3), stride=(16, 16), num_filter=6, name="conv0")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn0")
    x = mx.sym.LeakyReLU(x, act_type="prelu", name="relu0")
    x = mx.sym.FullyConnected(x, num_hidden=16, name="pre_fc1")
    x = mx.sym.BatchNorm(x, fix_gamma=True, name="fc1")
    shapes, _, states = x.infer_shape(data=(1, 3, 112, 112))
    random, arrays = np.random.default_rng(0), {}
    names = (
        [("arg", n) for n in x.list_arguments()],
        [("aux", n) for n in x.list_auxiliary_states()],
    )
    for (kind, name), shape in zip([*names[0], *names[1]], [*shapes, *states], strict=True):
        if name != "data":
            value = random.uniform(0.5, 1.5, shape) if shape == (6,) else random.normal(size=shape)
            arrays[f"{kind}:{name}"] = mx.nd.array(np.abs(value) if "var" in name else value)
    x.save(str(folder / "foreign-symbol.json"))
    mx.nd.save(str(folder / "foreign-0000.params"), arrays)
    return folder / "foreign"


@pytest.mark.parametrize("net", [{}, {"name": "graph"}])
def test_a_foreign_network_is_trained_as_a_graph_and_resumes_without_its_files(
    begin, tmp_path, net
):
    prefix = save_foreign(tmp_path)
    overrides = ["train.freeze_batch_norm=true", "optim.lr_factors={conv0: 0, head: 10}"]
    config, run, model, notices = begin(*overrides, model=prefix, net=net)
    assert config.net.name == "graph" and any("used as a graph" in n for n in notices)
    assert "BatchNorm frozen: 2 layers" in notices
    assert model.parameters["net.conv0_weight"].grad_req == "null"
    stored = open_model(prefix).parameters
    assert all((weights(model)[f"net.{name}"] == array).all() for name, array in stored.items())
    for path in tmp_path.glob("foreign-*"):
        path.unlink()
    _, resumed, second, _ = begin(*overrides, model=prefix, net=net)
    assert resumed.folder == run.folder and resumed.progress.step == 2
    assert same(weights(second), weights(model))
    again = open_model(run.folder)
    assert again.net == {"name": "graph", **config.net.options}
    assert "got net.name=iresnet18" in refusal(begin, "run.resume=false", model=run.folder,
                                               net={"name": "iresnet18"})  # fmt: skip
    assert "net.name='graph'" not in refusal(begin, model=tmp_path / "none", net={"name": "graph"})


def test_a_run_that_went_through_a_symbol_has_the_loss_of_its_checkpoint(begin, tmp_path, source):
    model = open_model(source[0])
    random = np.random.default_rng(3)  # statistics that are not those of the initialisation
    parameters = {
        name: (array * random.uniform(0.8, 1.2, array.shape)).astype(np.float32)
        for name, array in model.parameters.items()
        if name != "embedding.norm.gamma"
    }
    parameters["embedding.norm.gamma"] = model.parameters["embedding.norm.gamma"]
    write_checkpoint(replace(model, parameters=parameters), tmp_path / "step-00000001")
    write_symbol(open_model(tmp_path / "step-00000001"), tmp_path / "exported")
    losses, after = [], []
    for path in (tmp_path / "step-00000001", tmp_path / "exported"):
        # Both heads are drawn at random, equally, because only the checkpoint has class centres.
        given = ["train.class_centres=none", "run.resume=false", "optim.weight_decay=0"]
        # The import derives the width from the numbers of channels: 0.12 gives the same as 0.125.
        config, _, run, notices = begin(*given, net=OWN_NET, model=path)
        assert config.to_dict()["net"] == FULL_NET, notices
        image = mx.nd.array(np.random.default_rng(4).uniform(-1, 1, (4, 3, 112, 112)))
        loss, _ = train_step(
            *(run.net, run.head, run.trainer, image, mx.nd.arange(4), mx.nd.ones((1,)))
        )
        losses.append(loss.asscalar())
        after.append(weights(run))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert after[0].keys() == after[1].keys()

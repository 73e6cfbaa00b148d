# SPDX-License-Identifier: Apache-2.0
"""The loader of a configuration: position, decoder, shard, augmentation and triplet mining."""

from __future__ import annotations

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from assemble import loader as module
from assemble.inputs import open_inputs
from assemble.loader import drop_stale_caches, make_augmentation, make_loader, mine_triplets
from launch.ranks.comm import Comm
from pipeline import build_loader
from pipeline.loader import Share
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.epoch_orders import Position
from tests.assemble.configuration import make_config, make_synthetic
from training.bag import Bags
from training.run import Progress

SECOND = Comm(1, 2, 1, 2)


@pytest.fixture
def make(tiny_records, tmp_path):
    """Return ``make(*overrides, comm, progress)`` -> (loader, decoder, notices, config, inputs)."""
    loaders = []

    def made(*overrides, comm=Comm(), progress=Progress()):
        config = make_config(f"data.records={tiny_records}", f"run.dir={tmp_path}", *overrides)
        inputs = open_inputs(config, comm)
        run = SimpleNamespace(folder=tmp_path, progress=progress)
        loader, decode, notices = make_loader(config, inputs, run, comm, threads=1)
        loaders.append(loader)
        return loader, decode, notices, config, inputs

    yield made
    for loader in loaders:
        loader.close()


def test_a_rank_loads_its_shard_from_the_position_of_the_run(make):
    progress = Progress(step=3, images=24, epoch=1, consumed=24)
    loader, decode, _, _, inputs = make(
        "data.decode=cpu", "data.mirror=false", comm=SECOND, progress=progress
    )
    assert decode == "cpu"
    batch = next(loader)
    assert batch.after == Position(1, 32)
    expected = build_loader(
        "dali",
        inputs.records,
        4,
        position=Position(1, 24),
        seed=1,
        share=Share(1, 2),
        decode="cpu",
        augmentation=Augmentation(mirror=False),
    )
    same = next(expected)
    expected.close()
    assert (batch.label.asnumpy() == same.label.asnumpy()).all()
    assert (batch.image.asnumpy() == same.image.asnumpy()).all()


@pytest.mark.parametrize(
    ("overrides", "decoder"),
    [
        (["data.loader=cpu", "data.workers=0"], "cpu"),  # the cpu loader has one decoder
        (["data.decode=cpu"], "cpu"),
        ([], "cpu"),  # no GPU, no compiled operators
        (["data.decoded_cache_mib=64"], "cpu"),
    ],
)
def test_the_decoder_is_dali_without_gpu_and_operators(make, overrides, decoder):
    loader, chosen, notices, _, _ = make(*overrides)
    assert chosen == decoder and all(isinstance(notice, str) for notice in notices)
    assert next(loader).image.shape == (4, 3, 112, 112)


def test_an_unavailable_decoder_is_refused(make):
    with pytest.raises(ValueError, match=r"^data\.decode: 'native' "):
        make("data.decode=native")


def test_decoders_are_measured_on_the_device_that_decodes(monkeypatch):
    seen = []

    def measure(records, *, batch_size, threads, ctx, **options):
        seen.append((batch_size, threads, ctx))
        return "mixed", "measured"

    monkeypatch.setattr(module, "choose_decode_path", measure)
    inputs = SimpleNamespace(ctx=mx.gpu(3), records="records", sets={})
    for overrides in ((), ("data.decoded_cache_mib=64",)):
        config = make_config(*overrides)
        chosen = module.choose_decoder(config, inputs, Comm(), Augmentation(), 2)
        assert chosen == ("mixed", "measured")
    assert seen == [(4, 2, mx.gpu(3)), (4, 2, mx.cpu())]


def test_every_augmentation_option_is_passed_on():
    config = make_config(
        "data.mirror=false",
        "data.color_jitter=0.125",
        "data.jpeg_quality=[2, 20]",
        "data.jpeg_probability=0.25",
        "data.cut_out=40",
        "data.cut_out_probability=0.75",
        "data.shift=8",
        "data.grey=0.3",
    )
    assert make_augmentation(config.data) == Augmentation(
        mirror=False,
        color_jitter=0.125,
        jpeg_quality=(2, 20),
        jpeg_probability=0.25,
        cut_out=40,
        cut_out_probability=0.75,
        shift=8,
        grey=0.3,
    )
    assert make_augmentation(make_config().data) == Augmentation()


def test_triplets_are_mined_if_a_bag_is_configured(make):
    loader, _, _, config, _ = make()
    run, model = SimpleNamespace(progress=Progress()), SimpleNamespace(net=lambda x: x.mean((2, 3)))
    assert mine_triplets(config, loader, model, run, Comm(), print) is loader
    loader, _, _, config, _ = make(
        *("data.batch_size=6", "data.images_per_person=3", "data.bag=18"),
        *("head.name=angular_triplet", "head.mining=blocks", "head.margin=3"),
    )
    message = []
    bags = mine_triplets(config, loader, model, run, Comm(), message.append)
    assert isinstance(bags, Bags) and bags.images_per_epoch == loader.images_per_epoch
    batch = next(bags)
    anchor, positive, negative = batch.label.asnumpy().reshape(3, 2)
    assert (anchor == positive).all() and (anchor != negative).all()
    assert type(batch) is type(next(loader))
    assert np.isfinite(batch.image.asnumpy()).all() and message[0].startswith("bag at epoch 0, ")


@pytest.mark.parametrize(
    ("freed", "message"), [((0, 0), ""), ((1 << 20, 1), "removed 2 MiB of decoded images")]
)
def test_rank_0_reports_the_stale_caches_of_all_hosts(monkeypatch, capsys, freed, message):
    class Both(Comm):
        def gather_json(self, value):
            return [None, None] if value is None else [*freed]

    monkeypatch.setattr(module, "remove_stale_caches", lambda records, mib: freed[0])
    inputs = SimpleNamespace(records=None)
    drop_stale_caches(make_synthetic(), inputs, Both())
    assert capsys.readouterr().out.startswith(message)
    drop_stale_caches(make_synthetic(), inputs, Both(1, 2))  # other ranks print nothing
    assert capsys.readouterr().out == ""

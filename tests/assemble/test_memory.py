# SPDX-License-Identifier: Apache-2.0
"""The memory of the class centres is stated; what the host or the GPU cannot hold is refused."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import pytest

from assemble import inputs, memory, model
from assemble.memory import check_memory
from heads import HEADS
from launch.config.cli import load_config
from launch.config.configuration import ConfigError
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from nets import NETS
from tests.assemble.configuration import make_synthetic

SHARDED = ("head.sharded=true", "net.embedding_size=128")
MIB = 1 << 20
FOUR = Comm(0, 4, 0, 4)
LINE = (
    "class centres of 1,048,576 classes: 0.38 GiB per rank (centres 0.12 GiB, momentum 0.12 GiB, "
    "gradient 0.12 GiB), 0.75 GiB for the 2 ranks of this host, of 2.93 GiB available"
)


def check(*overrides, comm=Comm(), classes=1_048_576, ctx=mx.cpu(), size=(112, 112)):
    config = make_synthetic(*overrides)
    return check_memory(config, comm, ctx, where="set", num_classes=classes, image_size=size)


@pytest.fixture
def available(monkeypatch):
    """Return a function that sets the available memory of host and GPU in MiB, or to unknown."""

    def set_to(mib):
        def of_gpu(device_id):
            if mib is None:
                raise mx.base.MXNetError("no such device")
            return mib * MIB, 1 << 40

        monkeypatch.setattr(memory, "available_memory", lambda: mib and mib * MIB)
        monkeypatch.setattr(mx.context, "gpu_memory_info", of_gpu)

    return set_to


def test_a_sharded_head_states_its_memory_per_rank(available):
    available(3000)
    assert check(*SHARDED, comm=Comm(0, 4, 0, 2)) == LINE
    sampled = check(*SHARDED, "head.sample_rate=0.1", comm=Comm())
    assert "1.15 GiB per rank (centres 0.50 GiB, momentum 0.50 GiB, sample 0.15 GiB), of" in sampled
    frozen = check(*SHARDED, "optim.lr_factors={head: 0}")
    assert "0.50 GiB per rank (centres 0.50 GiB), of" in frozen
    available(None)
    for ctx in (mx.cpu(), mx.gpu(0)):
        line = check(*SHARDED, "optim.fused_centres=true", ctx=ctx)
        assert line.endswith("(centres 0.50 GiB, momentum 0.50 GiB)")


def test_other_heads_state_nothing(available):
    available(3000)
    assert check("net.embedding_size=128") == ""
    assert check("head.name=triplet", classes=1 << 40) == ""


@pytest.mark.parametrize(
    ("overrides", "comm", "advice"),
    [
        (SHARDED, Comm(0, 2, 0, 2), "set head.sample_rate=0.1, use more hosts or GPUs, or reduce"),
        (("net.embedding_size=128",), Comm(), "set head.sharded=true and use several ranks, use"),
        (("net.embedding_size=128",), Comm(0, 4, 0, 1), "set head.sharded=true, use more memory"),
        (
            (*SHARDED, "head.sample_rate=0.9"),
            Comm(0, 2, 0, 2),
            "; use more hosts or GPUs, or reduce",
        ),
        (("head.name=lgm", "net.embedding_size=128"), Comm(), "; use more memory, or reduce"),
    ],
)
def test_centres_that_cannot_fit_are_refused_in_one_sentence(available, overrides, comm, advice):
    available(1000)
    with pytest.raises(ConfigError) as error:
        check(*overrides, comm=comm)
    text = str(error.value)
    assert text.startswith("set: the class centres of 1,048,576 classes need ")
    assert "got 0.98 GiB available on this host; " in text and advice in text and "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "size", "need"),
    [
        (("data.batch_size=1048576",), (112, 112), "1048576 images of 112x112 pixels needs 147.00"),
        (("data.batch_size=8",), (13_000, 13_000), "8 images of 13000x13000 pixels needs 15.11"),
    ],
)
def test_a_batch_that_cannot_fit_is_refused(available, overrides, size, need):
    available(16 << 10)
    assert check(size=size) == ""
    with pytest.raises(ConfigError) as error:
        check(*overrides, size=size, comm=FOUR)
    assert str(error.value) == (
        f"set: one batch of data.batch_size={need} GiB per rank beside the class centres, got "
        "16.00 GiB available on this host for 4 ranks; lower data.batch_size"
    )


def test_the_ranks_of_a_host_share_its_memory_and_not_that_of_their_gpus(available):
    available(1600)
    assert check(*SHARDED, comm=Comm())  # 1536 MiB
    assert check(*SHARDED, comm=FOUR)
    eight = "net.embedding_size=256"
    with pytest.raises(ConfigError, match="3.00 GiB for the 4 ranks of this host, got 1.56 GiB"):
        check(*SHARDED, eight, comm=FOUR)
    line = check(*SHARDED, eight, comm=FOUR, ctx=mx.gpu(0))
    assert "gradient 0.25 GiB), of 1.56 GiB" in line
    with pytest.raises(ConfigError, match="got 1.56 GiB available on this GPU"):
        check(*SHARDED, eight, ctx=mx.gpu(0))


def test_opening_the_inputs_refuses_what_cannot_fit(available):
    available(1)
    config = make_synthetic(*SHARDED, "data.num_classes=1000000")
    text = "data.num_classes: the class centres of 1,000,000 classes need 1.43 GiB per rank"
    with pytest.raises(ConfigError, match=re.escape(text)):
        inputs.open_inputs(config, Comm())


def test_the_line_is_printed_once_before_the_head_is_built(available, monkeypatch, capsys):
    def build(*arguments):
        raise ConfigError("built")

    monkeypatch.setattr(model, "make_blocks", build)
    opened = SimpleNamespace(memory=LINE)
    for rank, printed in ((0, f"{LINE}\n"), (1, "")):
        with pytest.raises(Refused, match="built"):
            model.make_model(make_synthetic(*SHARDED), opened, None, Comm(rank, 1))
        assert capsys.readouterr().out == printed


def test_the_line_in_the_documentation_is_that_of_the_configuration(available):
    available(30.12 * 1024)
    root = Path(__file__).resolve().parents[2]
    path = root / "configs" / "r50_arcface_1m.yaml"
    config = load_config(["--cfg", str(path), "data.records=nowhere"], NETS, HEADS)
    line = check_memory(
        config,
        Comm(0, 8, 0, 8),
        mx.gpu(0),
        where="set",
        num_classes=10**6,
        image_size=(112, 112),
    )
    assert f"\n    {line}\n" in (root / "docs" / "large_sets.md").read_text()

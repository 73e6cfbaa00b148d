# SPDX-License-Identifier: Apache-2.0
"""The memory of the class centres is stated, and refused if the host or the GPU has less."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import pytest

from assemble import head_memory
from assemble.head_memory import check_head_memory
from heads import HEADS
from launch.config.cli import load_config
from launch.config.configuration import ConfigError
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from nets import NETS
from tests.assemble.configuration import make_synthetic

SHARDED = ("head.sharded=true", "net.embedding_size=128")
MIB = 1 << 20


def check(*overrides, comm=Comm(), classes=1_048_576, ctx=mx.cpu()):
    inputs = SimpleNamespace(num_classes=classes, ctx=ctx)
    return check_head_memory(make_synthetic(*overrides), inputs, comm)


@pytest.fixture
def memory(monkeypatch):
    """Return a function that sets the available memory of host and GPU in MiB."""

    def set_to(mib):
        monkeypatch.setattr(head_memory, "available_memory", lambda: mib and mib * MIB)
        info = (mib and mib * MIB, 1 << 40)
        monkeypatch.setattr(mx.context, "gpu_memory_info", lambda device_id: info)

    return set_to


def test_a_sharded_head_states_its_memory_per_rank(memory):
    memory(3000)
    assert check(*SHARDED, comm=Comm(0, 4, 0, 2)) == (
        "class centres of 1,048,576 classes: 0.38 GiB per rank (centres 0.12 GiB, momentum 0.12 "
        "GiB, gradient 0.12 GiB), 0.75 GiB for the 2 ranks of this host, of 2.93 GiB available"
    )
    sampled = check(*SHARDED, "head.sample_rate=0.1", comm=Comm())
    assert "1.20 GiB per rank (centres 0.50 GiB, momentum 0.50 GiB, sample 0.20 GiB), of" in sampled
    memory(None)
    assert check(*SHARDED, "optim.fused_centres=true").endswith("momentum 0.50 GiB)")


def test_other_heads_state_nothing(memory):
    memory(3000)
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
def test_what_cannot_fit_is_refused_in_one_sentence(memory, overrides, comm, advice):
    memory(1000)
    with pytest.raises(ConfigError) as error:
        check(*overrides, comm=comm)
    text = str(error.value)
    assert text.startswith("head: the centres of 1,048,576 classes need ") and "\n" not in text
    assert "got 0.98 GiB available on this host; " in text and advice in text


def test_the_ranks_of_a_host_share_its_memory_and_not_that_of_their_gpus(memory):
    memory(1600)
    assert check(*SHARDED, comm=Comm())  # 1536 MiB
    assert check(*SHARDED, comm=Comm(0, 4, 0, 4))
    eight = "net.embedding_size=256"
    with pytest.raises(ConfigError, match="3.00 GiB for the 4 ranks of this host, got 1.56 GiB"):
        check(*SHARDED, eight, comm=Comm(0, 4, 0, 4))
    assert "gradient 0.25 GiB), of 1.56 GiB" in check(
        *SHARDED, eight, comm=Comm(0, 4, 0, 4), ctx=mx.gpu(0)
    )
    with pytest.raises(ConfigError, match="got 1.56 GiB available on this GPU"):
        check(*SHARDED, eight, ctx=mx.gpu(0))


def test_the_refusal_comes_before_the_head_is_built(memory, monkeypatch):
    from assemble import model

    memory(1)
    monkeypatch.setattr(model, "make_blocks", lambda *arguments: pytest.fail("allocated"))
    inputs = SimpleNamespace(num_classes=10**8, ctx=mx.cpu())
    with pytest.raises(Refused, match="head: the centres of 100,000,000 classes need"):
        model.make_model(make_synthetic(*SHARDED), inputs, None, Comm())


def test_the_line_in_the_documentation_is_that_of_the_configuration(memory):
    memory(30.12 * 1024)
    root = Path(__file__).resolve().parents[2]
    path = root / "configs" / "r50_arcface_1m.yaml"
    config = load_config(["--cfg", str(path), "data.records=nowhere"], NETS, HEADS)
    inputs = SimpleNamespace(num_classes=10**6, ctx=mx.gpu(0))
    line = check_head_memory(config, inputs, Comm(0, 8, 0, 8))
    assert f"\n    {line}\n" in (root / "docs" / "large_sets.md").read_text()

# SPDX-License-Identifier: Apache-2.0
"""Output of the command verify for models of several formats, and on several ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass

import mxnet as mx
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.groups import write_groups
from evaluation.people import write_people
from interchange.export import export_model
from interchange.open_model import open_model
from launch.ranks.comm import Comm


def test_an_exported_model_has_the_results_of_the_run(checkpoint, sets, tmp_path, capsys):
    export_model(open_model(checkpoint), tmp_path / "a.onnx", format="onnx")
    tables = []
    for model in (checkpoint, tmp_path / "a.onnx"):
        arguments = ["verify", "--model", model, "--sets", sets / "one.bin", "--device", "cpu"]
        assert command.main(list(map(str, arguments))) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


@dataclass(frozen=True)
class TwoRanks(Comm):
    """One of two ranks; the other rank has the same rows and values."""

    size: int = 2

    def gather(self, rows):
        return np.concatenate([rows, rows])

    def gather_json(self, value):
        return [value, value]


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_ranks_only_the_first_writes(
    checkpoint, sets, tmp_path, capsys, monkeypatch, rank
):
    write_people(sets / "one.bin", [f"p{i // 2}" if i % 4 < 2 else f"q{i}" for i in range(24)])
    write_groups(sets / "one.bin", ["Asian" if i < 13 else "Indian" for i in range(24)])
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("launch.ranks.comm.connect", lambda: TwoRanks(rank=rank))
    report = tmp_path / "report.json"
    arguments = ["--model", checkpoint, "--sets", sets / "one.bin", "--json", report]
    assert command.main(["verify", *map(str, arguments), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert report.exists() == out.startswith("Verification\n") == (rank == 0)
    assert err.count("p6 is in several groups") == (rank == 0)
    assert rank == 0 or (out, err) == ("", "")


def test_a_network_without_usable_embeddings_is_refused_by_set(
    checkpoint, sets, capsys, monkeypatch
):
    def build(model, ctx, quiet=False):
        return lambda batch: mx.nd.zeros((len(batch), 8))

    monkeypatch.setattr("evaluation.commands.verify.build_net_on", build)
    arguments = ["verify", "--model", checkpoint, "--sets", sets / "two.bin", "--device", "cpu"]
    assert command.main(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    problem = "verify: the embedding of image 0 of pair 0 (of 15) cannot be normalised, got L2 norm"
    assert out == "" and err.startswith(f"error: two: {problem} 0; ") and err.count("\n") == 1

# SPDX-License-Identifier: Apache-2.0
"""Output of the command verify for models of several formats."""

from __future__ import annotations

from evaluation import __main__ as command
from interchange.export import export_model
from interchange.open_model import open_model


def test_an_exported_model_has_the_results_of_the_run(checkpoint, sets, tmp_path, capsys):
    export_model(open_model(checkpoint), tmp_path / "a.onnx", format="onnx")
    tables = []
    for model in (checkpoint, tmp_path / "a.onnx"):
        arguments = ["verify", "--model", model, "--sets", sets / "one.bin", "--device", "cpu"]
        assert command.main(list(map(str, arguments))) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]

# SPDX-License-Identifier: Apache-2.0
"""Output of the command verify for models of several formats."""

from __future__ import annotations

from evaluation import __main__ as command
from evaluation.commands.verify import format_table
from interchange.export import export_model
from interchange.open_model import open_model


def test_the_table_has_a_line_for_each_set():
    result = {"pairs": 12, "accuracy": 0.5, "accuracy_std": 0.125, "xnorm": 3.0}
    result["best_threshold"] = 1.5
    lines = format_table({"a": {**result, "tar_at_far_1e-3": 0.25}, "long": result}
                         | {"long": {**result, "tar_at_far_1e-3": None}}).splitlines()  # fmt: skip
    assert lines[:3] == [
        "set   pairs         accuracy  threshold  tar@far 1e-3  xnorm",
        "a        12  50.00% ± 12.50%     0.2500        25.00%   3.00",
        "long     12  50.00% ± 12.50%     0.2500             -   3.00",
    ]
    assert lines[3] == "threshold: cosine above which a pair counts as one person"
    assert lines[4].startswith("-: ")


def test_an_exported_model_has_the_results_of_the_run(checkpoint, sets, tmp_path, capsys):
    export_model(open_model(checkpoint), tmp_path / "a.onnx", format="onnx")
    tables = []
    for model in (checkpoint, tmp_path / "a.onnx"):
        arguments = ["verify", "--model", model, "--sets", sets / "one.bin", "--device", "cpu"]
        assert command.main(list(map(str, arguments))) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from interchange.model import InterchangeError, StoredModel
from interchange.model_card import model_card, write_model_card

CONTRACT = {"image_size": "112x112", "colour_order": "RGB", "value_range": "pixels from 0 to 255"}
MODEL = StoredModel(
    "net.pth",
    "torch",
    {"name": "mobilefacenet", "embedding_size": 128},
    (112, 112),
    {"a": np.zeros((3, 4), np.float32), "b": np.zeros(1000, np.float32)},
)
CONFIG = {
    "run": {"name": "x", "seed": 7},
    "data": {"records": ["/home/someone/faces/train.rec"], "batch_size": 64},
    "net": {"name": "mobilefacenet"},
    "optim": {"lr": 0.1},
    "train": {"pretrained": "/home/someone/old.pth", "max_steps": 40},
}
SUMMARY = {
    "status": "finished",
    "steps": 40,
    "ranks": 2,
    "verification": {"lfw": {"accuracy": 0.9912345, "accuracy_std": 0.004, "pairs": 6000}},
}


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run-001" / "checkpoints" / "step-00000040"
    folder.mkdir(parents=True)
    (tmp_path / "run-001" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "run-001" / "summary.json").write_text(json.dumps(SUMMARY))
    return replace(MODEL, source=str(folder), kind="checkpoint", threshold=0.3125)


def test_unknown_facts_are_not_stated():
    text = model_card(MODEL, "net.onnx", CONTRACT)
    assert text.startswith("# net.onnx\n")
    assert row(text, "parameters") == "| parameters | 1,012 |"
    assert row(text, "value_range") == "| value_range | pixels from 0 to 255 |"
    for name in ("layout", "threshold", "records", "recipe", "commit of the exporter"):
        assert row(text, name) == f"| {name} | not stated |"
    assert "Verification results: not stated." in text and "\nNone.\n" in text
    assert "fill in" in row(text, "licence of the weights")


def test_the_facts_of_a_run_are_stated_without_its_folders(checkpoint):
    text = model_card(checkpoint, "net.onnx", CONTRACT, licence="MIT", commit="abc123")
    assert row(text, "records") == "| records | train.rec |"
    assert row(text, "optim.lr") == "| optim.lr | 0.1 |"
    assert row(text, "run.seed") == "| run.seed | 7 |"
    assert row(text, "steps") == "| steps | 40 |"
    assert row(text, "lfw") == "| lfw | 0.99123 | 0.004 | not stated | 6000 |"
    assert "0.3125 (least cosine" in row(text, "threshold")
    assert row(text, "licence of the weights") == "| licence of the weights | MIT |"
    assert "someone" not in text


def test_the_summary_of_another_step_is_left_out(checkpoint):
    earlier = replace(checkpoint, source=checkpoint.source.replace("40", "20"))
    text = model_card(earlier, "net.onnx", CONTRACT)
    assert "0.99123" not in text and row(text, "optim.lr")


def test_damaged_files_of_a_run_are_left_out(checkpoint, tmp_path):
    (tmp_path / "run-001" / "config.yaml").write_text("a: [")
    (tmp_path / "run-001" / "summary.json").write_text("[1")
    text = model_card(checkpoint, "net.onnx", CONTRACT)
    assert row(text, "recipe") and "Verification results: not stated." in text


def test_the_symbol_of_a_graph_is_left_out_and_notices_stay_on_one_line():
    graph = replace(
        MODEL, net={"name": "graph", "symbol": "{JSON}", "embedding_size": 9}, notices=("a\nb | c",)
    )
    text = model_card(graph, "net.onnx", CONTRACT)
    assert "JSON" not in text and "- a b \\| c\n" in text


def test_the_card_lies_beside_the_exported_file(tmp_path):
    card = write_model_card(MODEL, tmp_path / "net.onnx", CONTRACT)
    assert card == tmp_path / "net.onnx.md" and card.read_text().startswith("# net.onnx")
    with pytest.raises(InterchangeError, match="the model card cannot be written, got No such"):
        write_model_card(MODEL, tmp_path / "missing" / "net.onnx", CONTRACT)

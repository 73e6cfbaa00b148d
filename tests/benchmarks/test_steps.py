# SPDX-License-Identifier: Apache-2.0
"""Complete runs of the scripts at tiny sizes, with PyTorch and GluonFR if available."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import baselines

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TORCH = os.environ.get("TORCH_PYTHON", "")
GLUONFR = (baselines.FOLDER / ".stamp").is_file()
LONG_S = 3600  # the rounds end a script, not its time limit
# The installation of GluonFR needs the network, so tests run its rows only if it is installed.
AVAILABLE_ROWS = "^ours|^gluon |^onnxruntime|^limit|^torch" + ("|^gluonfr" if GLUONFR else "")


def run(script: str | Path, path: Path, *words: object) -> tuple[list[dict], str]:
    """Run a benchmark by name, or a script by path; return its rows and its output."""
    path_of_script = script if isinstance(script, Path) else FOLDER / f"{script}.py"
    command = [sys.executable, path_of_script, "--rounds", 1, "--seconds", LONG_S, "--json", path]
    command += ["--only", AVAILABLE_ROWS, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if not TORCH and "--only" not in words:
        assert "left out: torch: no interpreter with PyTorch" in done.stdout
    return json.loads(path.read_text())["rows"], done.stdout


def names(rows: list[dict]) -> list[str]:
    return [row["name"] for row in rows]


def available(*expected: str) -> list[str]:
    """Return the names of the candidates that are available."""
    gone = (() if TORCH else ("torch",)) + (() if GLUONFR else ("gluonfr",))
    return [name for name in expected if name.split()[0] not in gone]


def test_head_step_gives_all_rows(tmp_path):
    sizes = ["--classes", 300, "--many-classes", 400, "--embedding-sizes", 16, "--batch", 8]
    rows, out = run("head_step", tmp_path / "rows.json", *sizes)
    kinds = ("ours", "ours fused update", "gluonfr", "gluonfr hybridized", "torch")
    kinds = (*kinds, "limit four GEMMs")
    expected = available(*(f"{kind} C=300 d=16 B=8" for kind in kinds))
    expected.append("ours fused update C=400 d=16 B=8")
    left = [name for name in expected if f"left out: {name}: the head has no fused" in out]
    assert names(rows) == [name for name in expected if name not in left]
    assert rows[0]["milliseconds_without_update"] <= rows[0]["milliseconds"]


def test_train_step_gives_all_rows(tmp_path):
    sizes = ["--nets", "mobilefacenet", "--batches", 2, "--classes", 10]
    sizes += [] if GLUONFR else ["--width", 0.25]  # GluonFR's network has width 1 only
    rows, _ = run("train_step", tmp_path / "rows.json", *sizes)
    kinds = ("ours mobilefacenet", "ours plain mobilefacenet", "gluonfr mobilefacenet")
    kinds = (*kinds, "torch mobilefacenet channels_last")
    assert names(rows) == available(*(f"{kind} B=2" for kind in kinds))
    assert rows[0]["parameters"] == rows[1]["parameters"]


def test_embedding_rate_gives_all_rows(tmp_path):
    sizes = ["--nets", "mobilefacenet", "--batches", 2, "--width", 0.25]
    rows, out = run("embedding_rate", tmp_path / "rows.json", *sizes, "--only", AVAILABLE_ROWS)
    kinds = ("ours", "ours mxnet", "onnxruntime", "gluonfr")
    assert names(rows) == available(*(f"{kind} mobilefacenet B=2" for kind in kinds)), out


def test_the_profile_lists_operators_and_leaves_no_file():
    words = ["--profile", "--nets", "mobilefacenet", "--batches", 2, "--width", 0.25]
    command = [sys.executable, FOLDER / "train_step.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ours mobilefacenet B=2: " in done.stdout
    assert "_backward_face_depthwise_norm" in done.stdout
    assert not (FOLDER.parent / "profile.json").exists()
    assert Path(os.devnull).is_char_device()  # MXNet removes its output file first


def test_operator_step_gives_all_rows(tmp_path):
    rows, _ = run("operator_step", tmp_path / "rows.json", "--shape", 2, 8, 6, 6)
    kinds = ("ours", "gluon", "torch")
    expected = [f"{k} {op}" for op in ("prelu", "batch_norm_prelu") for k in kinds]
    assert names(rows) == available(*expected)


@pytest.mark.skipif(not TORCH, reason="TORCH_PYTHON names no interpreter with PyTorch")
def test_pytorch_networks_have_parameters_of_the_same_sizes():
    from nets import build_net

    for name in ("mobilefacenet", "iresnet18"):
        net = build_net(name)
        net.initialize()
        ours = [p for p in net.collect_params().values() if "running_" not in p.name]
        code = "from benchmarks.steps import torch_nets as t; import sys; name = sys.argv[1]; "
        code += "net = t.mobilefacenet() if name == 'mobilefacenet' else t.iresnet(name); "
        code += "print(sorted(p.numel() for p in net.parameters()))"
        done = subprocess.run(
            [TORCH, "-c", code, name], cwd=FOLDER.parent, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == sorted(p.data().size for p in ours)

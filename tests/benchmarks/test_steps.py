# SPDX-License-Identifier: Apache-2.0
"""Each script from end to end at tiny sizes; PyTorch and GluonFR take part where they are there."""

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
# Installing GluonFR needs the network: where it is not there, its rows are not asked for.
LONG_S = 3600  # of a script: it ends with its rounds, however busy the machine is
WITHOUT = "^ours|^gluon |^limit|^torch" + ("|^gluonfr" if GLUONFR else "")


def run(script: str | Path, path: Path, *words: object) -> tuple[list[dict], str]:
    """Run a script of benchmarks/, or one elsewhere; return its rows and what it printed."""
    where = script if isinstance(script, Path) else FOLDER / f"{script}.py"
    command = [sys.executable, where, "--rounds", 1, "--seconds", LONG_S, "--json", path]
    command += ["--only", WITHOUT, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if not TORCH and "--only" not in words:
        assert "left out: torch: no interpreter with PyTorch" in done.stdout
    return json.loads(path.read_text())["rows"], done.stdout


def names(rows: list[dict]) -> list[str]:
    return [row["name"] for row in rows]


def here(*expected: str) -> list[str]:
    """Return the names without those of candidates that are not there."""
    gone = (() if TORCH else ("torch",)) + (() if GLUONFR else ("gluonfr",))
    return [name for name in expected if name.split()[0] not in gone]


def test_head(tmp_path):
    sizes = ["--classes", 300, "--many-classes", 400, "--embedding-sizes", 16, "--batch", 8]
    rows, out = run("head_step", tmp_path / "rows.json", *sizes)
    kinds = ("ours", "ours fused update", "gluonfr", "gluonfr hybridized", "torch")
    kinds = (*kinds, "limit four GEMMs")
    expected = here(*(f"{kind} C=300 d=16 B=8" for kind in kinds))
    expected.append("ours fused update C=400 d=16 B=8")
    left = [name for name in expected if f"left out: {name}: the head has no fused" in out]
    assert names(rows) == [name for name in expected if name not in left]
    assert rows[0]["milliseconds_without_update"] <= rows[0]["milliseconds"]


def test_whole_step(tmp_path):
    sizes = ["--nets", "mobilefacenet", "--batches", 2, "--classes", 10]
    sizes += [] if GLUONFR else ["--width", 0.25]  # GluonFR's has one width
    rows, _ = run("train_step", tmp_path / "rows.json", *sizes)
    kinds = ("ours mobilefacenet", "ours plain mobilefacenet", "gluonfr mobilefacenet")
    kinds = (*kinds, "torch mobilefacenet channels_last")
    assert names(rows) == here(*(f"{kind} B=2" for kind in kinds))
    assert rows[0]["parameters"] == rows[1]["parameters"]


def test_profile():
    words = ["--profile", "--nets", "mobilefacenet", "--batches", 2, "--width", 0.25]
    command = [sys.executable, FOLDER / "train_step.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ours mobilefacenet B=2: " in done.stdout
    assert "_backward_face_depthwise_norm" in done.stdout
    assert not (FOLDER.parent / "profile.json").exists()
    assert Path(os.devnull).is_char_device()  # MXNet removes the file that it is to write


def test_operators(tmp_path):
    rows, _ = run("operator_step", tmp_path / "rows.json", "--shape", 2, 8, 6, 6)
    kinds = ("ours", "gluon", "torch")
    expected = [f"{k} {op}" for op in ("prelu", "batch_norm_prelu") for k in kinds]
    assert names(rows) == here(*expected)


@pytest.mark.skipif(not TORCH, reason="TORCH_PYTHON names no interpreter with PyTorch")
def test_pytorch_has_the_same_networks():
    from nets import build_net

    for name in ("mobilefacenet", "iresnet18"):
        net = build_net(name)
        net.initialize()
        ours = [p for p in net.collect_params().values() if "running_" not in p.name]
        code = "from benchmarks import torch_nets as t; import sys; name = sys.argv[1]; "
        code += "net = t.mobilefacenet() if name == 'mobilefacenet' else t.iresnet(name); "
        code += "print(sorted(p.numel() for p in net.parameters()))"
        done = subprocess.run(
            [TORCH, "-c", code, name], cwd=FOLDER.parent, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == sorted(p.data().size for p in ours)

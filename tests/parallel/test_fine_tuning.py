# SPDX-License-Identifier: Apache-2.0
"""Two ranks start from a model: frozen layers keep every bit, and the others are trained."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx

from tests.parallel.ranks import run_several, training, write_cfg


def arrays(folder: Path) -> dict:
    found = {}
    for part in ("net", "head"):
        (path,) = folder.glob(f"checkpoints/step-*/{part}.params")
        found |= {f"{part}.{n}": a.asnumpy() for n, a in mx.nd.load(str(path)).items()}
    return found


def test_frozen_layers_keep_every_bit_on_two_ranks(tiny_records: Path, tmp_path: Path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 2})
    source, tuned = (tmp_path / "runs" / f"tiny-00{n}" for n in (1, 2))
    overrides = (
        f"train.pretrained={source}",
        "train.freeze_batch_norm=true",
        "optim.lr_factors={stem: 0, head: 2}",
    )
    commands = [training(cfg)[1:], training(cfg, *overrides)[1:]]
    first, ended = run_several(2, tmp_path, commands)
    assert (first.code, ended.code) == (0, 0), first.everything + ended.everything
    old = arrays(source)
    assert "class centres taken over: 12 of 12 (those of the record sets that" in ended.stdout
    new = arrays(tuned)
    fixed = {name for name in old if old[name].tobytes() == new[name].tobytes()}
    assert fixed >= {n for n in old if "running" in n or n.endswith(("norm.gamma", "norm.beta"))}
    assert "net.stem.conv.weight" in fixed and "net.last.conv.weight" not in fixed
    assert "head.weight" not in fixed

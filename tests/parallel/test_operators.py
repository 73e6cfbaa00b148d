# SPDX-License-Identifier: Apache-2.0
"""Training with native operators: first loss against plain operators, and exact resumption."""

from __future__ import annotations

import mxnet as mx
import pytest

from ops.build import BuildError, compile_library
from tests.parallel.ranks import (
    Ranks,
    pausable,
    pause_at,
    read_losses,
    resumed_at,
    run,
    run_several,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module", autouse=True)
def compiled():
    try:
        compile_library()
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("ranks", [1, 2])
def test_native_and_plain_operators_give_the_same_first_loss(ranks, tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 2}, data={"batch_size": 8})
    losses, choices = {}, ("plain", "native")
    commands = [training(cfg, f"run.operators={x}", f"run.name={x}")[1:] for x in choices]
    for choice, ended in zip(choices, run_several(ranks, tmp_path, commands), strict=True):
        assert ended.code == 0, ended.everything
        assert ("operators native" in ended.stdout) == (choice == "native"), ended.everything
        losses[choice] = read_losses(tmp_path / "runs" / f"{choice}-001")
    # Only the first loss: the small untrained net amplifies the rounding errors of the plain
    # operators from the second step on. tests/ops/test_choice.py compares the gradients.
    assert losses["native"][1] == pytest.approx(losses["plain"][1], rel=1e-5)


BLOCKS_WITH_CACHE = {"reader": "blocks", "block": 8, "window": 30, "decoded_cache_mib": 5}


@pytest.mark.parametrize(("ranks", "fused_centres"), [(2, False), (1, True)])
def test_a_killed_run_resumes_to_exactly_the_same_losses(
    ranks, fused_centres, tiny_records, tmp_path
):
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        data={} if ranks == 1 else BLOCKS_WITH_CACHE,
        run={"operators": "native"},
        optim={"lr": 0.02, "fused_centres": fused_centres},
        train={"max_steps": 12, "checkpoint_every": 3},
    )
    trainer = ("run.name=trainer", "optim.fused_centres=false", "train.max_steps=3")
    commands = [("run.name=whole",), *([trainer] if fused_centres else [])]
    for ended in run_several(ranks, tmp_path, [training(cfg, *c)[1:] for c in commands]):
        assert ended.code == 0, ended.everything
    folder = tmp_path / "runs" / "part-001"
    with Ranks(ranks, pausable(cfg, "run.name=part"), pause_at(5)) as started:
        started.until(lambda: max(read_losses(folder), default=0) >= 5)
        started.kill_all()
    ended = run(ranks, training(cfg, "run.name=part"))
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == 3, ended.everything
    assert read_losses(folder) == read_losses(tmp_path / "runs" / "whole-001")
    if fused_centres:
        saved = mx.nd.load(str(folder / "checkpoints" / "step-00000012" / "momentum.params"))
        assert float(saved["head.weight"].abs().max().asscalar()) > 0
        # The momentum has the same names and shapes as a trainer's.
        theirs = mx.nd.load(
            str(tmp_path / "runs/trainer-001/checkpoints/step-00000003/momentum.params")
        )
        assert {name: a.shape for name, a in theirs.items()} == {
            name: a.shape for name, a in saved.items()
        }

# SPDX-License-Identifier: Apache-2.0
"""Training with native operators: first loss against plain operators, and exact resumption."""

from __future__ import annotations

import mxnet as mx
import pytest

from ops.build import BuildError, compile_library
from tests.parallel.ranks import (
    CRASH_AFTER,
    CRASHED,
    read_losses,
    resumed_at,
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


CHOICES = ("plain", "native")
TRAINER = ("run.name=trainer", "optim.fused_centres=false", "train.max_steps=3")
BLOCKS_WITH_CACHE = {"reader": "blocks", "block": 8, "window": 30, "decoded_cache_mib": 5}


@pytest.fixture(scope="module", params=[1, 2])
def trained(request, tiny_records, tmp_path_factory):
    """Return the number of ranks, the folder of their runs, and the results by the run's name.

    The run "part" crashes after five steps and is resumed.  One rank updates the class centres with
    the fused operator, but for the run "trainer".
    """
    ranks, folder = request.param, tmp_path_factory.mktemp("operators")
    short = {"train": {"max_steps": 2}, "data": {"batch_size": 8}}
    first = write_cfg(folder / "first", tiny_records, run={"dir": str(folder / "runs")}, **short)
    cfg = write_cfg(
        folder,
        tiny_records,
        data={} if ranks == 1 else BLOCKS_WITH_CACHE,
        run={"operators": "native"},
        optim={"lr": 0.02, "fused_centres": ranks == 1},
        train={"max_steps": 12, "checkpoint_every": 3},
    )
    part = training(cfg, "run.name=part")[1:]
    commands = {
        **{x: training(first, f"run.operators={x}", f"run.name={x}")[1:] for x in CHOICES},
        "whole": training(cfg, "run.name=whole")[1:],
        "crashed": [f"{CRASH_AFTER}5", *part],
        "part": part,
        **({"trainer": training(cfg, *TRAINER)[1:]} if ranks == 1 else {}),
    }
    results = dict(zip(commands, run_several(ranks, folder, [*commands.values()]), strict=True))
    for name, ended in results.items():
        assert ended.code == (CRASHED if name == "crashed" else 0), ended.everything
    return ranks, folder / "runs", results


def test_native_and_plain_operators_give_the_same_first_loss(trained):
    _, runs, results = trained
    for choice in CHOICES:
        assert ("operators native" in results[choice].stdout) == (choice == "native")
    plain, native = (read_losses(runs / f"{choice}-001") for choice in CHOICES)
    # Only the first loss: the small untrained net amplifies the rounding errors of the plain
    # operators from the second step on. tests/ops/test_choice.py compares the gradients.
    assert native[1] == pytest.approx(plain[1], rel=1e-5)


def test_a_crashed_run_resumes_to_exactly_the_same_losses(trained):
    ranks, runs, results = trained
    assert resumed_at(results["part"]) == 3, results["part"].everything
    assert read_losses(runs / "part-001") == read_losses(runs / "whole-001")
    if ranks == 1:
        saved, theirs = (
            mx.nd.load(str(runs / run / "checkpoints" / step / "momentum.params"))
            for run, step in (("part-001", "step-00000012"), ("trainer-001", "step-00000003"))
        )
        assert float(saved["head.weight"].abs().max().asscalar()) > 0
        # The momentum of the fused operator has the names and shapes of a trainer's momentum.
        assert {n: a.shape for n, a in theirs.items()} == {n: a.shape for n, a in saved.items()}

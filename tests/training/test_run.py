# SPDX-License-Identifier: Apache-2.0
"""Progress of a run, and the seed of MXNet's generator."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import mxnet as mx
import pytest

from training.run import Progress, Run, reseed


def draw(*place):
    reseed(*place)
    return tuple(mx.nd.random.uniform(shape=(4,)).asnumpy().tolist())


def test_the_draws_depend_on_seed_step_and_rank_alone():
    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    drawn = [draw(*place) for place in places]
    assert len({*drawn}) == len(places)
    assert [draw(*place) for place in places] == drawn


def test_progress_converts_to_a_dict_and_back():
    saved = asdict(Progress(step=3, images=24, epoch=1, consumed=8))
    assert saved == {"step": 3, "images": 24, "epoch": 1, "consumed": 8}
    assert Progress(**saved) == Progress(3, 24, 1, 8) and Progress() == Progress(0, 0, 0, 0)


def test_only_the_progress_of_a_run_changes():
    run = Run(
        folder=Path("runs/demo-001"),
        progress=Progress(),
        seed=1,
        global_batch_size=8,
        epoch_images=80,
        end_images=160,
        lr=lambda images: 0.1,
        margin=lambda images: 1.0,
    )
    run.progress.step += 1
    assert run.progress.step == 1 and run.checkpoint is None and run.clip_norm == 0
    with pytest.raises(FrozenInstanceError):
        run.end_images = 80

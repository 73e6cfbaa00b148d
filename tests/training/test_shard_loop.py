# SPDX-License-Identifier: Apache-2.0
"""The loop saves a distributed head on all ranks, and on none if the weights of one are bad."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.sharded_model import RUN, class_values, fill, make_model, on_ranks
from training import save_shards
from training.checkpoint import open_checkpoint, save_checkpoint
from training.faults import TrainingError
from training.loop import Cadence, Loop
from training.run import Progress, Run


def checkpoint_on_ranks(parent, size, change=lambda model, rank: None):
    """Call the loop's checkpoint on every rank; return the error of each rank or None."""

    def work(comm):
        model = make_model(7, comm.rank, comm.size)
        fill(model, 7)
        change(model, comm.rank)
        run = Run(
            folder=parent,
            progress=Progress(step=5, images=50),
            seed=1,
            global_batch_size=10,
            epoch_images=100,
            end_images=100,
            lr=lambda images: 0.1,
            margin=lambda images: 1.0,
        )
        state = {"run": RUN, "progress": {"step": 5}}
        loop = Loop(
            model,
            SimpleNamespace(images_per_epoch=100),
            comm,
            SimpleNamespace(),
            run,
            save=lambda: save_checkpoint(parent, 5, model, state=state, keep=1, comm=comm),
            verify=None,
            cadence=Cadence(),
        )
        try:
            loop._checkpoint()
        except TrainingError as error:
            return error
        assert loop.consensus.saved_step == 5

    return on_ranks(size, work)


def test_all_ranks_save_their_shards(tmp_path):
    assert checkpoint_on_ranks(tmp_path, 3) == [None] * 3
    shards = open_checkpoint(tmp_path / "step-00000005").shards
    assert np.array_equal(shards.parameters()["weight"], class_values(7))


@pytest.mark.parametrize("bad_rank", [0, 2])
def test_weights_of_one_rank_that_are_not_finite_stop_all_before_they_write(tmp_path, bad_rank):
    def spoil(model, rank):
        if rank == bad_rank:
            model.head.weight.data()[0, 0] = float("nan")

    errors = checkpoint_on_ranks(tmp_path, 3, spoil)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert f"rank {bad_rank}: the weights after step 5 are not finite" in str(errors[0])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_on_one_rank_stops_all_with_the_name_of_that_rank(
    tmp_path, monkeypatch
):
    original = save_shards.write_shard

    def fail(folder, header, arrays):
        if header.rank == 1:
            raise OSError(28, "No space left on device")
        return original(folder, header, arrays)

    monkeypatch.setattr(save_shards, "write_shard", fail)
    errors = checkpoint_on_ranks(tmp_path, 3)
    assert len({str(error) for error in errors}) == 1
    text = "rank 1: " + str(tmp_path / "step-00000005") + ": the checkpoint cannot be written, got "
    assert text + "No space left on device" in str(errors[2])
    assert list(tmp_path.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""Open and check the inputs of a run: device, record sets, verification sets, initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mxnet as mx

import ops
from assemble.rules import check_run, require_none
from evaluation.evaluate import find_sets
from evaluation.pairs import Pairs, read_pairs
from evaluation.set_check import check_sets
from launch.environment.gpu import choose_device
from nets import check_image_size
from pipeline.loader import SYNTHETIC_STEPS
from pipeline.records import mapped
from pipeline.records.open import RecordSet, open_records
from pipeline.sampling.batches import epoch_images
from training.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from launch.config.configuration import Config
    from launch.ranks.comm import Comm

SYNTHETIC_IMAGE_SIZE = (112, 112)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of a run on this rank, after `open_inputs` has opened and checked them."""

    ctx: mx.Context
    """Device of this rank."""
    records: RecordSet | None
    """Record set to train on; None for synthetic batches."""
    sets: dict[str, Pairs]
    """Verification sets by name."""
    pretrained: Checkpoint | None
    """Checkpoint with the initial weights; None for random weights."""
    num_classes: int
    """Number of classes; each class is one person."""
    image_size: tuple[int, int]
    """Height and width of the training images in pixels."""
    epoch_images: int
    """Number of images per epoch of all ranks together, a multiple of the global batch size."""
    notices: tuple[str, ...] = ()
    """Notices about the device of this rank, to be written to the log."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the sizes and checksums of the training data.

        Every checkpoint stores this dict.  A resumed run compares the stored dict with the dict of
        its own training data.
        """
        return {
            "images": len(self.records) if self.records else 0,
            "people": self.num_classes,
            "image_size": list(self.image_size),
            **(self.records.checksums() if self.records else {}),
        }

    def shared_facts(self) -> dict[str, Any]:
        """Return the values that must be equal on all ranks.

        These are the device type, the number of pairs of each verification set, and the sizes and
        checksums of the training data.
        """
        return {
            "device": self.ctx.device_type,
            "pairs": {name: len(pairs) for name, pairs in self.sets.items()},
            **self.fingerprint(),
        }


def open_inputs(config: Config, comm: Comm) -> Inputs:
    """Open, check and return all files and devices that the configuration names.

    Raises
    ------
    ValueError
        If an input is invalid, or if the configuration has problems.  One message then lists all
        problems.
    OSError
        If a file cannot be read.
    """
    mapped.guard_with(ops.guard())
    ctx, notice = choose_context(config, comm)
    comm.require_link(ctx)
    gpus = comm.local_size if ctx.device_type == "gpu" else 0
    require_none(check_run(config, comm.size, gpus))
    data, records = config.data, None
    num_classes, image_size = data.num_classes, SYNTHETIC_IMAGE_SIZE
    global_batch_size = data.batch_size * comm.size
    images = SYNTHETIC_STEPS * global_batch_size
    if data.records:
        records = open_records(
            data.records, config.run.dir, data.num_classes, data.labels, data.images_filter
        )
        images = epoch_images(records, data.batch_size, comm.size, data.images_per_person)
        num_classes, image_size = records.num_classes, records.image_size
    check_image_size(config.net.name, image_size)
    pretrained = open_checkpoint(Path(config.train.pretrained)) if config.train.pretrained else None
    if pretrained:
        pretrained.require_image_size(image_size)
    found = find_sets(config.eval.sets) if config.eval.sets else {}
    sets = {name: read_pairs(path) for name, path in found.items()}
    check_sets(sets, image_size)
    return Inputs(
        ctx=ctx,
        records=records,
        sets=sets,
        pretrained=pretrained,
        num_classes=num_classes,
        image_size=image_size,
        epoch_images=max(1, images // global_batch_size) * global_batch_size,
        notices=(notice,) if notice else (),
    )


def choose_context(config: Config, comm: Comm) -> tuple[mx.Context, str]:
    """Choose the device of this rank; return the device and a notice for the log ("" if none)."""
    gpus = mx.context.num_gpus() if config.run.device != "cpu" else 0
    on_gpu, notice = choose_device(config.run.device, gpus, comm.local_rank, comm.local_size)
    return mx.gpu(comm.local_rank) if on_gpu else mx.cpu(), notice


def data_summary(config: Config, inputs: Inputs, ranks: int) -> dict[str, Any]:
    """Describe the training data for the first lines of the log: a dict from name to value."""
    data = config.data
    return {
        "data": ", ".join(data.records) or "synthetic",
        "images": len(inputs.records) if inputs.records else 0,
        "people": inputs.num_classes,
        "loader": f"{data.loader}/{data.reader}",
        "batch": f"{data.batch_size} x {ranks} = {data.batch_size * ranks}",
    }

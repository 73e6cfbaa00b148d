# SPDX-License-Identifier: Apache-2.0
"""Open and check the inputs of a run: device, record sets, verification sets, initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mxnet as mx

import ops
from assemble.class_centres import find_match
from assemble.memory import check_memory
from assemble.remote_records import local_records
from assemble.rules import check_run, require_none
from evaluation.evaluate import find_sets
from evaluation.pairs import Pairs, read_pairs
from evaluation.set_check import check_sets
from evaluation.verification import MIN_FALSE_ACCEPTS
from launch.config.configuration import GRAPH_NET, ConfigError
from launch.environment.gpu import choose_device
from nets import build_net, check_image_size
from pipeline.loader import SYNTHETIC_STEPS
from pipeline.records import mapped
from pipeline.records.class_record import describe_classes
from pipeline.records.open import RecordSet, open_records
from pipeline.sampling.batches import epoch_images
from training.best_metric import parse_best_metric
from training.layer_groups import check_lr_factors

if TYPE_CHECKING:
    from assemble.pretrained import Pretrained
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
    pretrained: Pretrained | None
    """Model with the initial weights; None for random weights and for a resumed run."""
    num_classes: int
    """Number of classes; each class is one person."""
    classes: dict[str, Any]
    """Record of the classes, see pipeline/records/class_record.py."""
    image_size: tuple[int, int]
    """Height and width of the training images in pixels."""
    epoch_images: int
    """Number of images per epoch of all ranks together, a multiple of the global batch size."""
    memory: str = ""
    """Line for the log about the memory of the class centres; empty if they are not sharded."""
    notices: tuple[str, ...] = ()
    """Notices about the device of this rank and its copies of remote sets, for the log."""

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


def open_inputs(config: Config, comm: Comm, pretrained: Pretrained | None = None) -> Inputs:
    """Open, check and return all files and devices that the configuration names.

    ``pretrained`` is the model that `assemble.pretrained.open_pretrained` has returned.

    Raises
    ------
    ValueError
        If an input is invalid, or if the configuration breaks rules.  If it breaks several rules,
        one message lists all of them.
    OSError
        If a file cannot be read.
    """
    mapped.guard_with(ops.guard())
    ctx, notice = choose_context(config, comm)
    comm.require_link(ctx)
    gpus = comm.local_size if ctx.device_type == "gpu" else 0
    require_none(check_run(config, comm.size, gpus))
    data, records = config.data, None
    copy_notices: list[str] = []
    num_classes, image_size = data.num_classes, SYNTHETIC_IMAGE_SIZE
    global_batch_size = data.batch_size * comm.size
    images = SYNTHETIC_STEPS * global_batch_size
    if data.records:
        paths, copy_notices = local_records(data.records, data.remote_cache, comm.local_rank)
        records = open_records(
            paths, config.run.dir, data.num_classes, data.labels, data.images_filter
        )
        images = epoch_images(records, data.batch_size, comm.size, data.images_per_person)
        num_classes, image_size = records.num_classes, records.image_size
    # If the net is an imported graph, check_start checks the image size.
    if config.net.name != GRAPH_NET:
        check_image_size(config.net.name, image_size)
    memory = check_memory(
        config,
        comm,
        ctx,
        where=records.name if records else "data.num_classes",
        num_classes=num_classes,
        image_size=image_size,
    )
    classes = {"num_classes": num_classes, "sets": [], "runs": []}
    if records:
        classes = describe_classes(records)
    check_start(config, pretrained, image_size, classes)
    found = find_sets(config.eval.sets) if config.eval.sets else {}
    sets = {name: read_pairs(path) for name, path in found.items()}
    check_sets(sets, image_size)
    check_best(config, sets)
    return Inputs(
        ctx=ctx,
        records=records,
        sets=sets,
        pretrained=pretrained,
        num_classes=num_classes,
        classes=classes,
        image_size=image_size,
        epoch_images=max(1, images // global_batch_size) * global_batch_size,
        memory=memory,
        notices=(*([notice] if notice else []), *copy_notices),
    )


def check_best(config: Config, sets: Mapping[str, Pairs]) -> None:
    """Raise ValueError if the metric ``eval.best`` cannot be computed for these sets."""
    if not config.eval.best:
        return
    metric = parse_best_metric(config.eval.best, list(sets))
    if not metric.metric.startswith("tar_at_far_"):
        return
    required = round(MIN_FALSE_ACCEPTS / float(metric.metric.removeprefix("tar_at_far_")))
    for name in metric.sets:
        negatives = int((~sets[name].issame).sum())
        if negatives < required:
            raise ConfigError(
                f"eval.best: {metric.metric} requires {required} different-person pairs, got "
                f"{negatives} in the set {name}; use eval.best={name}/accuracy"
            )


def check_start(
    config: Config,
    pretrained: Pretrained | None,
    image_size: tuple[int, int],
    classes: Mapping[str, Any],
) -> None:
    """Raise ValueError if the initial weights or learning rate factors do not fit net and data.

    ``image_size`` is (height, width) in pixels.  ``classes`` is the record of the classes of the
    training data (pipeline/records/class_record.py).
    """
    if pretrained:
        pretrained.require_image_size(image_size)
        rows = pretrained.head_shapes.get("weight", [0])[0]
        per_class = config.head.options.get("sub_centers", 1)
        find_match(config.train.class_centres, classes, pretrained.classes, rows, per_class)
    if not (pretrained or config.optim.lr_factors):
        return
    net = build_net(config.net.name, image_size, **config.net.options)  # not initialised
    if pretrained:
        pretrained.require_fit(net)
    if problem := check_lr_factors(net._collect_params_with_prefix(), config.optim.lr_factors):
        raise ConfigError(problem)


def choose_context(config: Config, comm: Comm) -> tuple[mx.Context, str]:
    """Choose the device of this rank; return the device and a notice for the log ("" if none)."""
    gpus = mx.context.num_gpus() if config.run.device != "cpu" else 0
    on_gpu, notice = choose_device(config.run.device, gpus, comm.local_rank, comm.local_size)
    return mx.gpu(comm.local_rank) if on_gpu else mx.cpu(), notice

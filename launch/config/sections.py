# SPDX-License-Identifier: Apache-2.0
"""Sections of the configuration: the type, range, default and meaning of every key.

The type of a field declares its range.  A section with rules between its keys has a method
``check``, which yields pairs (key, error message).  ``--help`` and the JSON Schema contain the
docstrings of the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from launch.config import bounds
from launch.config.default_data import WAYS
from launch.config.duration import NO_DURATION, Duration
from ranges import Within, above, at_least

DALI_DECODERS = ("cpu", "mixed", "mixed_cuda", "mixed_hardware", "mixed_gpu_huffman")
"""Values of ``data.decode`` with which DALI decodes all images."""


@dataclass(frozen=True)
class RunConfig:
    """Run folder, random seed, device and operators."""

    name: str = ""
    """Name of the run folder, without the number that is added to the name. Empty: the name of the
    YAML file."""
    dir: str = "runs"
    """Folder that contains the run folders."""
    seed: Annotated[int, Within(0, 2**31 - 1)] = 1
    """Random seed of the image order, the augmentation and the initial weights."""
    resume: bool = True
    """true: resume the newest run named run.name if that run is unfinished, otherwise start a new
    run. false: always start a new run."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device of each rank. cpu: the CPU. gpu: one GPU per rank. auto: one GPU per rank if the host
    has GPUs, otherwise the CPU. gpu and auto refuse a host with some GPUs, but fewer than ranks."""
    operators: Literal["auto", "native", "plain"] = "auto"
    """Implementation of the operators. native: the fused C++ operators in ops/. plain: the
    operators of MXNet Gluon. auto: native if those are compiled, otherwise plain."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, error message) if the run name is not a plain folder name."""
        if self.name != Path(self.name).name or self.name in (".", ".."):
            yield (
                "name",
                f"must be a plain folder name, got {self.name!r}; use run.dir for the path",
            )


@dataclass(frozen=True)
class DataConfig:
    """Record files, data loader and augmentation."""

    records: list[str] = field(default_factory=list)
    """Record sets to train on: .rec files, folders with train.rec, train.idx and property, or URLs
    such as s3://bucket/folder, which are copied to remote_cache. Several sets are concatenated.
    Default: the folder in the variable FACES_DIR, or else ~/.mxnet/datasets/face/emore or ms1m."""
    remote_cache: str = "~/.cache/face-training"
    """Folder for the local copies of record sets at URLs. Each host copies a set once."""
    labels: Literal["stacked", "shared"] = "stacked"
    """Meaning of the labels of several record sets. stacked: the sets contain different people, so
    the labels are renumbered. shared: a label means the same person in every set."""
    images_filter: Annotated[int, Within(0, bounds.MAX_WINDOW)] = 0
    """Minimum number of images per person. People with fewer images are removed, and the remaining
    labels are renumbered from 0. 0: keep all people."""
    loader: Literal["dali", "cpu", "synthetic"] = "dali"
    """Data loader. dali: the loader of this project, with DALI or the native decoder. cpu: the
    DataLoader of MXNet Gluon, as a baseline. synthetic: one fixed batch, repeated."""
    reader: Literal["random", "blocks", "window"] = "random"
    """Order of the images. random: a new permutation of all images every epoch. blocks: blocks of
    consecutive images in random order, for disks with slow seeks. window: a sequential scan
    through a shuffle buffer, for record files that are already shuffled."""
    decode: Literal[
        "auto", "cpu", "native", "mixed", "mixed_cuda", "mixed_hardware", "mixed_gpu_huffman"
    ] = "auto"
    """JPEG decoder. cpu: DALI on the CPU. native: the C++ decoder in ops/, which returns the same
    pixels as cpu. mixed, mixed_cuda, mixed_hardware, mixed_gpu_huffman: DALI on the GPU. auto on a
    GPU: the decoder that is fastest in a measurement of a few seconds at the start of the run. auto
    on a CPU: native if it is compiled and supports most images, otherwise cpu."""
    batch_size: bounds.BatchSize = 128
    """Number of images per rank and step."""
    num_classes: Annotated[int, Within(0, bounds.MAX_CLASSES)] = 0
    """Number of people (classes). 0: read it from the property file or from the labels."""
    window: bounds.Window = 16384
    """With data.reader=blocks: number of images per window. Blocks are put in random order, then
    the images of each window are shuffled. With data.reader=window: size of the shuffle buffer in
    images."""
    block: bounds.Window = 128
    """With data.reader=blocks: number of consecutive images per block."""
    images_per_person: Annotated[int, Within(0, bounds.MAX_BATCH, "4 is usual")] = 0
    """Number of images per person in a batch, for losses on pairs and triplets. An epoch then
    contains every person once. 0: off, images are in the order that data.reader chooses."""
    bag: Annotated[int, Within(0, bounds.MAX_BATCH, "7200 is usual")] = 0
    """Number of images per rank in a bag. The net embeds all images of a bag before triplets are
    mined among these images. InsightFace uses 7200. Requires images_per_person. 0: off, triplets
    are mined within each batch."""
    mirror: bool = True
    """Mirror each image horizontally with probability 0.5."""
    color_jitter: Annotated[float, Within(0, 1, open_high=True)] = 0.0
    """Maximum relative change of brightness, contrast and saturation; InsightFace uses 0.125.
    0: off."""
    jpeg_quality: list[Annotated[int, Within(1, 100)]] = field(default_factory=list)
    """[lowest, highest] quality of a second JPEG compression, as an augmentation; InsightFace uses
    [2, 20]. []: off."""
    jpeg_probability: bounds.Fraction = 0.5
    """Fraction of the images that jpeg_quality applies to."""
    cut_out: bounds.Pixels = 0
    """Side in pixels of a grey square at a random place in the image (cutout). 0: off."""
    cut_out_probability: bounds.Fraction = 0.5
    """Fraction of the images that cut_out applies to."""
    shift: bounds.Pixels = 0
    """Maximum random shift of an image in pixels, vertically and horizontally. 0: off."""
    grey: bounds.Fraction = 0.0
    """Fraction of the images that are converted to grey."""
    decoded_cache_mib: bounds.Count = 0
    """Memory limit in MiB of the cache of decoded images that the ranks of a host share. The run
    ends with an error if the decoded images need more memory. 0: no cache."""
    threads: bounds.Threads = 0
    """Number of decoder threads per rank. 0: the number of cores of the host divided by its number
    of ranks."""
    workers: bounds.Threads = 1
    """With data.loader=cpu: number of worker processes. 0: decode in the training process."""
    prefetch: Annotated[int, Within(1, 1024)] = 4
    """Number of batches that the loader prepares in advance."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read or decoded. stop: end the run. skip: replace
    the image by another image of its batch, and name the image in the log and in summary.json."""
    max_bad_fraction: bounds.Fraction = 0.001
    """With data.on_bad_image=skip: fraction of the images that may be bad. The run ends if more
    images are bad. A fraction above 0 permits at least one bad image."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, error message) for each missing, invalid or contradictory key."""
        if not self.records and self.loader != "synthetic":
            yield "records", f"required, got none; {WAYS}"
        if len(self.records) > 1 and self.num_classes:
            yield (
                "num_classes",
                f"must be 0 for several record sets, got {self.num_classes} for "
                f"{len(self.records)} sets; write the number of classes into the property file of "
                "each set",
            )
        if len(self.records) > 1 and self.reader == "window":
            yield (
                "reader",
                f"'window' reads one record set, got {len(self.records)}; merge the sets with "
                "`python -m tools.data shuffle`, or use data.reader=random",
            )
        if self.reader == "window" and self.loader == "cpu":
            yield "reader", "'window' requires data.loader=dali, got cpu; use data.reader=random"
        if self.decoded_cache_mib and (self.loader != "dali" or self.reader == "window"):
            yield (
                "decoded_cache_mib",
                "requires data.loader=dali, and data.reader=random or data.reader=blocks, got "
                f"data.loader={self.loader} and data.reader={self.reader}; set "
                "data.decoded_cache_mib=0, or change these two keys",
            )
        if self.on_bad_image == "skip" and self.reader == "window" and self.decode in DALI_DECODERS:
            yield (
                "on_bad_image",
                "'skip' cannot replace images that DALI reads, got data.reader=window and "
                f"data.decode={self.decode}; use data.reader=random or blocks, data.decode=native, "
                "or data.on_bad_image=stop",
            )
        quality = self.jpeg_quality
        if quality and not (len(quality) == 2 and quality[0] <= quality[1]):
            yield (
                "jpeg_quality",
                f"must be [lowest, highest], both from 1 to 100, got {quality}; for example, write "
                "[2, 20]",
            )
        yield from self._check_people()

    def _check_people(self) -> Iterator[tuple[str, str]]:
        each = self.images_per_person
        if each == 1:
            yield (
                "images_per_person",
                f"must be 0 (off) or at least 2, got {each}; 4 images per person is usual",
            )
        elif each and self.batch_size % each:
            yield (
                "images_per_person",
                f"must divide data.batch_size, got {each} and {self.batch_size}; use a "
                f"data.batch_size of {-(-self.batch_size // each) * each}",
            )
        if each and self.reader != "random":
            yield (
                "images_per_person",
                f"requires data.reader=random, got {self.reader}; use data.reader=random",
            )
        if each and self.loader == "synthetic":
            yield (
                "images_per_person",
                f"requires record files, got {each} with data.loader=synthetic; set "
                "data.images_per_person=0",
            )
        if not self.bag:
            return
        if self.bag % self.batch_size:
            yield (
                "bag",
                f"must be a multiple of data.batch_size, got {self.bag} and {self.batch_size}; use "
                f"a data.bag of {max(1, self.bag // self.batch_size) * self.batch_size}",
            )
        if self.batch_size % 3:
            yield (
                "bag",
                f"requires a data.batch_size that is a multiple of 3, got {self.batch_size}; use "
                f"{self.batch_size * 3} or another multiple of 3",
            )
        if not each:
            yield (
                "bag",
                "requires data.images_per_person above 0, got 0; set it to 5, for example",
            )


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["sgd", "nag"] = "sgd"
    """Optimizer. sgd: SGD with momentum. nag: SGD with Nesterov momentum."""
    lr: Annotated[float, above(0)] = 0.1
    """Learning rate after the warm-up."""
    momentum: Annotated[float, Within(0, 1, open_high=True)] = 0.9
    """Momentum factor of SGD."""
    weight_decay: bounds.NonNegative = 5.0e-4
    """Weight decay (L2 penalty) of all parameters except biases, the parameters of BatchNorm and
    PReLU, and the radius of Ring loss."""
    schedule: Literal["step", "cosine", "polynomial"] = "step"
    """Learning-rate schedule after the warm-up. step: multiply the rate by decay at each milestone.
    cosine, polynomial: lower the rate smoothly from lr to final_lr."""
    milestones: list[Duration] = field(default_factory=list)
    """With optim.schedule=step: durations from the start of the run. At the end of each duration
    the learning rate is multiplied by decay."""
    decay: Annotated[float, Within(0, 1, open_low=True)] = 0.1
    """With optim.schedule=step: factor by which the learning rate is multiplied at each
    milestone."""
    power: bounds.NonNegative = 2.0
    """With optim.schedule=polynomial: exponent in final_lr + (lr - final_lr) * (1 - progress) **
    power, where progress rises from 0 after the warm-up to 1 at the end of the run."""
    final_lr: bounds.NonNegative = 0.0
    """With optim.schedule=cosine or polynomial: learning rate at the end of the run."""
    warmup: Duration = NO_DURATION
    """Duration over which the learning rate rises linearly from 0 to lr."""
    lr_factors: dict[str, Annotated[float, at_least(0, "0 freezes the group")]] = field(
        default_factory=dict
    )
    """Factors on the learning rate by layer group, for example {stem: 0.1, stages: 0.1, head: 10}.
    A group is head, a block of the net such as stem or embedding, or a part of a block such as
    stages.3; the longest name that fits a parameter applies. Groups without a factor have the
    factor 1. 0: freeze the group, including the statistics of its BatchNorm layers."""
    clip_norm: bounds.NonNegative = 0.0
    """Maximum global L2 norm of the averaged gradients. 0: no clipping."""
    fused_centres: bool = False
    """Update the class centres inside the loss operator, which saves the memory of their gradient.
    Requires a run with one rank, or head.sharded=true."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, error message) for each key that contradicts another key."""
        if self.fused_centres and (self.name != "sgd" or self.clip_norm):
            yield (
                "fused_centres",
                f"requires optim.name=sgd and optim.clip_norm=0, got {self.name!r} and "
                f"{self.clip_norm}; set optim.fused_centres=false",
            )
        if self.milestones and self.schedule != "step":
            yield (
                "milestones",
                f"require optim.schedule=step, got {self.schedule!r}; remove the milestones",
            )


@dataclass(frozen=True)
class TrainConfig:
    """Duration of the run, initial weights, margin warm-up, logging and checkpoints."""

    epochs: bounds.Count = 0
    """Maximum number of epochs. 0: no limit. The run ends at the first limit that it reaches:
    epochs, max_images or max_steps."""
    max_images: bounds.Count = 0
    """Maximum number of images of the run, all ranks together. 0: no limit."""
    max_steps: bounds.Count = 0
    """Maximum number of optimizer steps of the run. A run that resumes with another number of ranks
    still ends after the same number of images. 0: no limit."""
    pretrained: str = ""
    """Model with the initial weights: a run folder, a checkpoint, or a model file of another
    format (docs/training.md lists the formats). The net loads all its weights from there. Keys of
    net that the configuration does not set have the values of the model."""
    class_centres: Literal["matching", "all", "none"] = "matching"
    """With train.pretrained: class centres that the head takes over from the model. matching: those
    of the classes that come from the same record sets; if the model does not record its classes,
    all, provided that the number of classes is equal. all: all, by class number. none: no class
    centres."""
    freeze_batch_norm: bool = False
    """Keep the statistics, scales and offsets of all BatchNorm layers of the net at their initial
    values. Training then normalises with the stored statistics, as verification does."""
    margin_start: Duration = NO_DURATION
    """Duration at the start of the run during which the loss has no margin."""
    margin_warmup: Duration = NO_DURATION
    """Duration after margin_start over which the margin grows linearly from 0 to its full value."""
    log_every: bounds.PositiveCount = 20
    """Number of steps between two lines of the log. At the same interval the losses are read and
    the ranks exchange their state."""
    checkpoint_every: bounds.PositiveCount = 1000
    """Number of steps between two checkpoints."""
    keep_checkpoints: bounds.PositiveCount = 3
    """Number of checkpoints to keep; older checkpoints are deleted."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, error message) for each missing or contradictory key."""
        for key, default in (("class_centres", "matching"), ("freeze_batch_norm", False)):
            value = getattr(self, key)
            if value != default and not self.pretrained:
                yield (
                    key,
                    f"must keep its default if train.pretrained is not set, got {value!r}; set "
                    f"train.pretrained to a model, or remove train.{key}",
                )
        if not (self.epochs or self.max_images or self.max_steps):
            yield (
                "epochs",
                "epochs, max_images or max_steps must be above 0, got 0 for all; set one of them",
            )


@dataclass(frozen=True)
class EvalConfig:
    """Verification during and after training."""

    sets: list[str] = field(default_factory=list)
    """Verification sets: .bin files, or folders that contain .bin files."""
    every_steps: bounds.Count = 2000
    """Number of steps between two verifications. 0: verify at the end only."""
    batch_size: bounds.BatchSize = 64
    """Number of images per forward pass of the verification."""
    best: str = ""
    """Metric that decides which checkpoint the run keeps in its folder best/: SET/METRIC, or METRIC
    for the mean over all sets.  METRIC is accuracy, auc, eer or tar_at_far_1e-3.  Empty: no best
    checkpoint."""
    patience: bounds.Count = 0
    """Number of verifications without a better value of eval.best after which the run ends.  0: the
    run never ends early."""

# SPDX-License-Identifier: Apache-2.0
"""The sections of a configuration: every key, its type and range, its default, what it means.

The range of one value stands in its type; ``check`` of a section yields what is wrong between
several values, as (field, problem). The help and the JSON Schema are made of the same declarations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from launch.config.duration import NO_TIME, Duration
from ranges import Setting, Within, above, at_least, setting

PATHS = ("run.dir", "data.records", "train.pretrained", "eval.sets")
"""Keys whose values are paths, in which ``~`` is the home folder."""

Count = Annotated[int, at_least(0)]
PositiveCount = Annotated[int, at_least(1)]
NonNegative = Annotated[float, at_least(0)]
Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives and what makes it repeatable."""

    name: str = ""
    """Folder of the run under ``dir``; the YAML's name by default."""
    dir: str = "runs"
    """Parent folder of all runs."""
    seed: Annotated[int, Within(0, 2**31 - 1)] = 1
    """Seed of order, augmentation, initial weights."""
    resume: bool = True
    """Resume an unfinished run of this name; false starts a new one."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: a GPU for each rank if the host has any, too few are refused; else the CPU for all."""
    operators: Literal["auto", "native", "plain"] = "auto"
    """native: the fused operators of ops/; plain: Gluon's; auto: native if available."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if self.name != Path(self.name).name or self.name in (".", ".."):
            yield (
                "name",
                f"must be a plain folder name, got {self.name!r}; use run.dir for the path",
            )


@dataclass(frozen=True)
class DataConfig:
    """Records and how they are read."""

    records: list[str] = field(default_factory=list)
    """Folders with train.rec, train.idx and property, or .rec files; several are read as one."""
    labels: Literal["stacked", "shared"] = "stacked"
    """Several sets. stacked: of different people; shared: a label is one person in all of them."""
    images_filter: Count = 0
    """People with fewer images are left out and the others numbered densely; 0 keeps all."""
    loader: Literal["dali", "cpu", "synthetic"] = "dali"
    """dali: the pipeline; cpu: Gluon DataLoader, the baseline; synthetic: one fixed batch."""
    reader: Literal["random", "blocks", "window"] = "random"
    """random: a true permutation per epoch; blocks: for disks that are slow to seek; window:
    sequential scan, for sets shuffled on disk."""
    decode: Literal[
        "auto", "cpu", "native", "mixed", "mixed_cuda", "mixed_hardware", "mixed_gpu_huffman"
    ] = "auto"
    """cpu: DALI; native: the compiled decoder, which gives the same pixels; mixed and following:
    DALI on GPUs; auto: with a GPU, measures for a few seconds at the start and takes the fastest;
    otherwise native, if the operators are compiled and it supports most images."""
    batch_size: PositiveCount = 128
    """Images per rank and step."""
    num_classes: Count = 0
    """Number of people; 0 takes it from the property file or the labels."""
    window: PositiveCount = 16384
    """Images that the blocks reader mixes; those in the window reader's shuffle buffer."""
    block: PositiveCount = 128
    """Consecutive images that the blocks reader reads together."""
    images_per_person: Annotated[int, at_least(0, "4 is usual")] = 0
    """Batches of groups of so many images of one person, for losses on pairs; an epoch then shows
    every person once.  0: images in random order."""
    bag: Annotated[int, at_least(0, "7200 is usual")] = 0
    """Images of a rank, so grouped, among which triplets are chosen before they are trained on;
    7200 as InsightFace has it.  0 for none."""
    mirror: bool = True
    """Mirror every image with probability one half."""
    color_jitter: Annotated[float, Within(0, 1, open_high=True)] = 0.0
    """Largest relative change of brightness, contrast, saturation; 0.125 as InsightFace has it."""
    jpeg_quality: list[Annotated[int, Within(1, 100)]] = field(default_factory=list)
    """[lowest, highest] quality of a second JPEG compression, [2, 20] as InsightFace has it."""
    jpeg_probability: Share = 0.5
    """Share of the images that are compressed again where jpeg_quality is given."""
    cut_out: Count = 0
    """Side in pixels of a grey square laid over the image; 0 for none."""
    cut_out_probability: Share = 0.5
    """Share of the images that get a square where cut_out is given."""
    shift: Count = 0
    """Most pixels by which an image is moved, down or up and right or left; 0 for none."""
    grey: Share = 0.0
    """Share of the images that lose their colours."""
    decoded_cache_mib: Count = 0
    """Memory of the host, for all its ranks, that may hold the decoded images; 0 keeps none."""
    threads: Count = 0
    """Decoder threads per rank; 0 shares the cores among the ranks of the host."""
    workers: Count = 1
    """Worker processes of the cpu loader; 0 decodes in the loader's own thread."""
    prefetch: PositiveCount = 4
    """Prefetched batches."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if not self.records and self.loader != "synthetic":
            yield "records", "required: a folder with train.rec, train.idx and property, or a .rec"
        if len(self.records) > 1 and self.num_classes:
            yield (
                "num_classes",
                f"belongs to one record set, got {self.num_classes} and {len(self.records)} sets; "
                "put it into the property file of each",
            )
        if len(self.records) > 1 and self.reader == "window":
            yield (
                "reader",
                f"'window' reads one record set, got {len(self.records)}; make one of them with "
                "tools/shuffle_records.py, or use data.reader=random",
            )
        if self.reader == "window" and self.loader == "cpu":
            yield "reader", "'window' is of data.loader=dali, got cpu; use data.reader=random"
        if self.decoded_cache_mib and (self.loader != "dali" or self.reader == "window"):
            yield (
                "decoded_cache_mib",
                "is for data.loader=dali with data.reader=random or blocks, got "
                f"{self.loader} with {self.reader}; set it to 0",
            )
        quality = self.jpeg_quality
        if quality and not (len(quality) == 2 and quality[0] <= quality[1]):
            yield "jpeg_quality", f"must be [lowest, highest] within 1 to 100, got {quality}"
        yield from self._check_people()

    def _check_people(self) -> Iterator[tuple[str, str]]:
        each = self.images_per_person
        if each == 1:
            yield "images_per_person", f"must be 0 (off) or at least 2, got {each}; 4 is usual"
        elif each and self.batch_size % each:
            yield (
                "images_per_person",
                f"must divide data.batch_size, got {each} and {self.batch_size}; use a "
                f"data.batch_size of {-(-self.batch_size // each) * each}",
            )
        if each and self.reader != "random":
            yield (
                "images_per_person",
                f"needs access to any image, got data.reader={self.reader}; use data.reader=random",
            )
        if each and self.loader == "synthetic":
            yield (
                "images_per_person",
                f"is for records, got {each} with data.loader=synthetic; set it to 0",
            )
        if not self.bag:
            return
        if self.bag % self.batch_size:
            yield "bag", f"must be a multiple of data.batch_size, got {self.bag}; 7200 is usual"
        if self.batch_size % 3:
            yield (
                "bag",
                f"needs a data.batch_size of whole triplets, got {self.batch_size}; use "
                f"{self.batch_size * 3} or another multiple of 3",
            )
        if not each:
            yield "bag", "needs data.images_per_person, got 0; 5 is usual"


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["sgd", "nag"] = "sgd"
    """sgd: with momentum; nag: with Nesterov's."""
    lr: Annotated[float, above(0)] = 0.1
    """Peak learning rate."""
    momentum: Annotated[float, Within(0, 1, open_high=True)] = 0.9
    """Share of the last update that the next one keeps."""
    weight_decay: NonNegative = 5.0e-4
    """Not applied to biases, BatchNorm and PReLU."""
    schedule: Literal["step", "cosine", "polynomial"] = "step"
    """How the rate falls from ``lr`` after the warm-up."""
    milestones: list[Duration] = field(default_factory=list)
    """step: after each of these the rate is multiplied by ``decay``."""
    decay: Annotated[float, Within(0, 1, open_low=True)] = 0.1
    """step: factor on the rate at a milestone."""
    power: NonNegative = 2.0
    """polynomial: lr * (1 - progress) ** power."""
    final_lr: NonNegative = 0.0
    """cosine and polynomial: the rate at the end."""
    warmup: Duration = NO_TIME
    """Linear rise from 0 to ``lr``."""
    clip_norm: NonNegative = 0.0
    """Largest global norm of the averaged gradients; 0 clips nothing."""
    fused_centres: bool = False
    """SGD on the class centres within the operator, without an array of gradients; one rank."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if self.fused_centres and (self.name != "sgd" or self.clip_norm):
            yield (
                "fused_centres",
                f"goes with optim.name=sgd and optim.clip_norm=0, got {self.name!r} and "
                f"{self.clip_norm}; set it to false",
            )
        if self.milestones and self.schedule != "step":
            yield "milestones", f"belong to schedule 'step', got schedule {self.schedule!r}"


@dataclass(frozen=True)
class TrainConfig:
    """How long, and what is kept."""

    epochs: Count = 0
    """Passes over the set; 0 sets no end.  The earliest of the three ends the run."""
    max_images: Count = 0
    """Images of all ranks together; 0 sets no end."""
    max_steps: Count = 0
    """Updates with the number of ranks that the run began with; 0 sets no end."""
    pretrained: str = ""
    """A checkpoint folder that the run starts from: its net, and what fits of its head."""
    margin_start: Duration = NO_TIME
    """Plain (normalised) softmax until then."""
    margin_warmup: Duration = NO_TIME
    """From margin_start on, the margin grows linearly over this stretch."""
    log_every: PositiveCount = 20
    """Steps between two lines of the log; losses are read and ranks compared then."""
    checkpoint_every: PositiveCount = 1000
    """Steps between two checkpoints."""
    keep_checkpoints: PositiveCount = 3
    """Number of checkpoints kept."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if not (self.epochs or self.max_images or self.max_steps):
            yield "epochs", "one of epochs, max_images and max_steps must be above 0, got 0 for all"


@dataclass(frozen=True)
class EvalConfig:
    """Verification during and after training."""

    sets: list[str] = field(default_factory=list)
    """.bin files, or folders whose .bin files are all taken."""
    every_steps: Count = 2000
    """Steps between two verifications; 0: only at the end."""
    batch_size: PositiveCount = 64
    """Images per forward pass."""


def section_settings(section: type) -> dict[str, Setting]:
    """Return the settings of a section, by name, as `ranges.settings` does for builders."""
    hints = get_type_hints(section, include_extras=True)
    defaults: Any = section()
    return {
        f.name: setting(f.name, hints[f.name], getattr(defaults, f.name))
        for f in dataclasses.fields(section)
    }

# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: frozen dataclasses, the YAML loader and its one clear error.

A YAML key, a dataclass field, a keyword argument and a log key are the same word.  The sections
``net`` and ``head`` have no dataclass: their keys are the keyword arguments of the builders,
handed in as signatures, so that this module lists the choices without importing a network.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from launch.duration import NO_TIME, Duration

Problems = list[str]
Signatures = Mapping[str, inspect.Signature]


class ConfigError(ValueError):
    """A configuration that cannot run; the message lists every problem found."""


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives and what makes it repeatable."""

    name: str = ""
    """Folder of the run under ``dir``; the YAML's name by default."""
    dir: str = "runs"
    """Parent folder of all runs."""
    seed: int = 1
    """Seed of order, augmentation, initial weights."""
    resume: bool = True
    """Go on with an unfinished run of this name; false starts a new one."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: a GPU for each rank if the host has enough of them, else the CPU for all."""
    operators: Literal["auto", "native", "plain"] = "plain"
    """native: the fused operators of ops/, CPU alone; plain: Gluon's; auto: native if built."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if self.name != Path(self.name).name or self.name in (".", ".."):
            yield (
                "name",
                f"must be a plain folder name, got {self.name!r}; use run.dir for the path",
            )
        if not 0 <= self.seed < 2**31:
            yield "seed", f"must be in 0 to 2147483647, got {self.seed}"


@dataclass(frozen=True)
class DataConfig:
    """Records and how they are read."""

    records: list[str] = field(default_factory=list)
    """Folders with train.rec, train.idx and property, or .rec files; several are read as one."""
    labels: Literal["stacked", "shared"] = "stacked"
    """Several sets. stacked: of different people; shared: a label is one person in all of them."""
    images_filter: int = 0
    """People with fewer images are left out and the others numbered densely; 0 keeps all."""
    loader: Literal["dali", "cpu", "synthetic"] = "dali"
    """dali: the pipeline; cpu: Gluon DataLoader, the baseline; synthetic: one fixed batch."""
    reader: Literal["random", "window"] = "random"
    """random: a true permutation per epoch; window: sequential scan, for sets shuffled on disk."""
    decode: Literal["auto", "cpu", "mixed"] = "auto"
    """Where DALI decodes; auto: mixed on a GPU, cpu otherwise."""
    batch_size: int = 128
    """Images per rank and step."""
    num_classes: int = 0
    """Number of people; 0 takes it from the property file or the labels."""
    window: int = 16384
    """Images in the window reader's shuffle buffer."""
    mirror: bool = True
    """Mirror every image with probability one half."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast, saturation; 0.125 as InsightFace has it."""
    jpeg_quality: list[int] = field(default_factory=list)
    """[lowest, highest] quality of a second JPEG compression, [2, 20] as InsightFace has it."""
    jpeg_probability: float = 0.5
    """Share of the images that are compressed again where jpeg_quality is given."""
    cut_out: int = 0
    """Side in pixels of a grey square laid over the image; 0 for none."""
    cut_out_probability: float = 0.5
    """Share of the images that get a square where cut_out is given."""
    threads: int = 0
    """Decoder threads per rank; 0 shares the cores among the ranks of the host."""
    workers: int = 1
    """Worker processes of the cpu loader; 0 decodes in the loader's own thread."""
    prefetch: int = 2
    """Batches made ahead."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if not self.records and self.loader != "synthetic":
            yield "records", "required: a folder with train.rec, train.idx and property, or a .rec"
        yield from _at_least(self, batch_size=1, num_classes=0, window=1)
        yield from _at_least(self, threads=0, workers=0, prefetch=1, images_filter=0, cut_out=0)
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
        if not 0 <= self.color_jitter < 1:
            yield "color_jitter", f"must be in [0, 1), got {self.color_jitter}"
        quality = self.jpeg_quality
        if quality and not (len(quality) == 2 and 1 <= quality[0] <= quality[1] <= 100):
            yield "jpeg_quality", f"must be [lowest, highest] within 1 to 100, got {quality}"
        for key in ("jpeg_probability", "cut_out_probability"):
            if not 0 <= getattr(self, key) <= 1:
                yield key, f"must be in [0, 1], got {getattr(self, key)}"


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["sgd", "nag"] = "sgd"
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    weight_decay: float = 5.0e-4
    """Not applied to biases, BatchNorm and PReLU."""
    schedule: Literal["step", "cosine", "polynomial"] = "step"
    milestones: list[Duration] = field(default_factory=list)
    """step: after each of these the rate is multiplied by ``decay``."""
    decay: float = 0.1
    power: float = 2.0
    """polynomial: lr * (1 - progress) ** power."""
    final_lr: float = 0.0
    """cosine and polynomial: the rate at the end."""
    warmup: Duration = NO_TIME
    """Linear rise from 0 to ``lr``."""
    clip_norm: float = 0.0
    """Largest global norm of the averaged gradients; 0 clips nothing."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        if self.lr <= 0:
            yield "lr", f"must be above 0, got {self.lr}"
        if not 0 <= self.momentum < 1:
            yield "momentum", f"must be in [0, 1), got {self.momentum}"
        if not 0 < self.decay <= 1:
            yield "decay", f"must be in (0, 1], got {self.decay}"
        yield from _at_least(self, weight_decay=0, power=0, final_lr=0, clip_norm=0)
        if self.milestones and self.schedule != "step":
            yield "milestones", f"belong to schedule 'step', got schedule {self.schedule!r}"


@dataclass(frozen=True)
class TrainConfig:
    """How long, and what is kept."""

    epochs: int = 0
    """Passes over the set; 0 sets no end.  The earliest of the three ends the run."""
    max_images: int = 0
    """Images of all ranks together; 0 sets no end."""
    max_steps: int = 0
    """Updates with the number of ranks that the run began with; 0 sets no end."""
    pretrained: str = ""
    """A checkpoint folder whose net (and head, where it fits) the run starts from."""
    margin_start: Duration = NO_TIME
    """Plain (normalised) softmax until then."""
    margin_warmup: Duration = NO_TIME
    """From margin_start on, the margin grows linearly over this stretch."""
    log_every: int = 20
    """Steps between two lines of the log; losses are read and ranks compared then."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    keep_checkpoints: int = 3
    """How many checkpoints stay."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        yield from _at_least(self, epochs=0, max_images=0, max_steps=0, log_every=1)
        yield from _at_least(self, checkpoint_every=1, keep_checkpoints=1)
        if not (self.epochs or self.max_images or self.max_steps):
            yield "epochs", "one of epochs, max_images and max_steps must be above 0, got 0 for all"


@dataclass(frozen=True)
class EvalConfig:
    """Verification during and after training."""

    sets: list[str] = field(default_factory=list)
    """.bin files, or folders whose .bin files are all taken."""
    every_steps: int = 2000
    """Steps between two verifications; 0: only at the end."""
    batch_size: int = 64
    """Images per forward pass."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem)."""
        yield from _at_least(self, every_steps=0, batch_size=1)


@dataclass(frozen=True)
class Choice:
    """A name out of a dictionary of builders, and the keyword arguments for its builder."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """The whole configuration; run_train.py alone sees it."""

    run: RunConfig
    data: DataConfig
    net: Choice
    head: Choice
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as plain values, every default spelt out."""
        plain: dict[str, dict[str, Any]] = {}
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if isinstance(value, Choice):
                plain[section.name] = {"name": value.name, **value.options}
            else:
                plain[section.name] = {
                    f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)
                }
        return plain


# What may differ between a run and its resumption: it does not change the weights.
FREE_ON_RESUME = {
    *("run.name", "run.dir", "run.resume", "data.threads", "data.workers", "data.prefetch"),
    *("data.batch_size", "train.log_every", "train.keep_checkpoints", "eval.batch_size"),
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return ``section.key: old -> new`` for what a resumed run may not change."""
    found = []
    for section in sorted({*old, *new}):
        a, b = old.get(section, {}), new.get(section, {})
        for key in sorted({*a, *b}):
            if f"{section}.{key}" not in FREE_ON_RESUME and a.get(key) != b.get(key):
                found.append(f"{section}.{key}: {a.get(key)!r} -> {b.get(key)!r}")
    return found


def build_config(raw: Any, nets: Signatures, heads: Signatures, where: str = "config") -> Config:
    """Build a Config from nested mappings.

    Parameters
    ----------
    raw
        ``{section: {key: value}}`` as YAML gives it.
    nets, heads
        Signature of every builder by name; parameters with a default are the section's keys.
    where
        What the error names: the file.

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    problems: Problems = []
    sections = {f.name: f for f in dataclasses.fields(Config)}
    hints = get_type_hints(Config)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected sections ({', '.join(sections)}), got {raw!r}")
    for name in raw:
        if name not in sections:
            problems.append(f"{name}: unknown section{_hint(name, sections)}")
    built: dict[str, Any] = {}
    for name in sections:
        value = raw.get(name)
        value = {} if value is None else value
        if not isinstance(value, dict):
            problems.append(f"{name}: expected a section (key: value lines), got {value!r}")
        elif name in ("net", "head"):
            built[name] = _choice(name, value, nets if name == "net" else heads, problems)
        else:
            built[name] = _section(hints[name], name, value, problems)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"{where}: {count}\n" + "\n".join(f"  {p}" for p in problems))
    return Config(**built)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raise ConfigError with the place of a syntax error."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, got {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML, got: {text}; mend that line") from None


def _section(kind: type, name: str, raw: dict[str, Any], problems: Problems) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    values, before = {}, len(problems)
    for key, value in raw.items():
        if key not in fields:
            problems.append(f"{name}.{key}: unknown key{_hint(key, fields)}")
            continue
        values[key] = _value(hints[key], value, f"{name}.{key}", problems)
    if len(problems) > before:
        return None
    built = kind(**values)
    problems += [f"{name}.{key}: {text}" for key, text in built.check()]
    return built


def _choice(section: str, raw: dict[str, Any], known: Signatures, problems: Problems) -> Any:
    raw = dict(raw)
    name = raw.pop("name", None)
    if name is None:
        problems.append(f"{section}.name: required, but missing; known: {', '.join(known)}")
        return None
    if name not in known:
        problems.append(
            f"{section}.name: must be one of the known names, got {name!r}" + _hint(name, known)
        )
        return None
    parameters = {p.name: p for p in known[name].parameters.values() if p.default is not p.empty}
    options = {key: p.default for key, p in parameters.items()}
    for key, value in raw.items():
        if key not in parameters:
            problems.append(f"{section}.{key}: unknown key for {name!r}{_hint(key, parameters)}")
            continue
        default = parameters[key].default
        options[key] = _value(type(default), value, f"{section}.{key}", problems)
    return Choice(name, options)


def _value(hint: Any, value: Any, where: str, problems: Problems) -> Any:
    """Check one value against its type; append the problem and return None if it does not fit."""
    if get_origin(hint) is Literal:
        if value in get_args(hint) and not isinstance(value, bool):
            return value
        choices = ", ".join(repr(c) for c in get_args(hint))
        problems.append(
            f"{where}: must be one of {choices}, got {value!r}{_hint(value, get_args(hint), False)}"
        )
        return None
    if get_origin(hint) is list:
        entries = value if isinstance(value, list) else [value]
        inner = get_args(hint)[0]
        named = [f"{where}[{i}]" for i in range(len(entries))] if entries is value else [where]
        return [_value(inner, v, n, problems) for v, n in zip(entries, named, strict=True)]
    if hint is Duration:
        try:
            return Duration.parse(value)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: must be a finite number, got {value}")
        return None
    if hint is str and isinstance(value, str):
        return _expand(value, where, problems)
    if type(value) is hint:
        return value
    note = ""
    if isinstance(value, str) and hint in (int, float):
        try:
            number = float(value)
            note = f" (YAML needs a dot before the exponent: write {number:.1e})"
        except ValueError:
            note = ""
    problems.append(
        f"{where}: expected {hint.__name__}, got {type(value).__name__} {value!r}{note}"
    )
    return None


def _expand(text: str, where: str, problems: Problems) -> str:
    """Put environment variables in the place of ``${NAME}``."""
    for name in re.findall(r"\$\{(\w+)\}", text):
        if name not in os.environ:
            problems.append(
                f"{where}: the environment variable {name} is not set, got {text!r}; "
                f"run as {name}=... horovodrun ..."
            )
        text = text.replace(f"${{{name}}}", os.environ.get(name, ""))
    return text


def _hint(word: Any, known: Any, listing: bool = True) -> str:
    near = difflib.get_close_matches(str(word), [str(k) for k in known], 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(str(k) for k in known)}" if listing else ""


def _at_least(section: Any, **limits: float) -> Iterator[tuple[str, str]]:
    for name, limit in limits.items():
        if getattr(section, name) < limit:
            yield name, f"must be at least {limit}, got {getattr(section, name)}"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Duration) else value

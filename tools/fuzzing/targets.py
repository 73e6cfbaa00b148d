# SPDX-License-Identifier: Apache-2.0
"""Fuzzing targets: each target makes small seed files and reads changed copies of these files.

A target has ``refusals``, the errors with which its reader may refuse a file, and two methods.
``prepare`` writes seeds to a folder, and ``case`` reads one changed file.  Imports are inside the
classes, because a target must not load the libraries of another target.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzzing.base import SIDE_PIXELS, BaseTarget, Target, make_image
from tools.fuzzing.mutation import mutate


class Records(BaseTarget):
    """Fuzzing target: open changed record sets (.rec, .idx, property); read up to 16 images."""

    # The message "cannot be decoded" contains no value after "got".
    messages_state_value = False

    def prepare(self, folder: Path) -> None:
        from ops import guard, loader_kernels, use
        from pipeline.records import mapped
        from pipeline.records.mapped import RecordError
        from pipeline.records.writer import write_record_set

        self.refusals, self.folder = (RecordError,), folder
        use("auto")
        mapped.guard_with(guard())
        self.kernels = loader_kernels()
        self.seeds = []
        samples = [(k // 3, make_image(k)) for k in range(12)]
        for header in (True, False):
            place = folder / f"seed-{header}"
            place.mkdir()
            size = (SIDE_PIXELS, SIDE_PIXELS)
            write_record_set(place, samples, 4, image_size=size, header=header)
            self.seeds.append({file.name: file.read_bytes() for file in place.iterdir()})
        (folder / "set").mkdir()

    def case(self, rng: random.Random) -> None:
        from pipeline.records.open import open_records
        from pipeline.records.reader import BufferRing, RecordReader

        files = dict(rng.choice(self.seeds))
        for name in rng.choice((["train.rec"], ["train.idx"], ["property"], list(files))):
            files[name] = mutate(rng, files[name], (b"\t", b"\n", b",", b"-", b"\x0a\x23\xd7\xce"))
        if rng.random() < 0.1:
            del files["property"]
        place = self.folder / "set"
        for name in ("train.rec", "train.idx", "property"):
            (place / name).unlink(missing_ok=True)
            if name in files:
                (place / name).write_bytes(files[name])
        shutil.rmtree(self.folder / "scans", ignore_errors=True)
        records = open_records(place, self.folder / "scans", images_filter=rng.choice((0, 1)))
        reader = RecordReader(records, rng.choice((None, self.kernels)))
        rows = np.arange(min(len(records), 16))
        reader.gather(rows, rng.choice((None, BufferRing(0))))
        reader.check_files()


class Index(BaseTarget):
    """Fuzzing target: a damaged cached index must never change which records are opened."""

    def prepare(self, folder: Path) -> None:
        from pipeline.records.open import open_records
        from pipeline.records.writer import write_record_set

        self.place, self.scans = folder / "seed", folder / "scans"
        self.place.mkdir()
        samples = [(k // 3, make_image(k)) for k in range(12)]
        size = (SIDE_PIXELS, SIDE_PIXELS)
        write_record_set(self.place, samples, 4, image_size=size, header=False)
        self.expected = open_records(self.place, self.scans).checksums()
        (self.cached,) = self.scans.iterdir()
        self.content = self.cached.read_bytes()

    def case(self, rng: random.Random) -> None:
        from pipeline.records.open import open_records

        self.cached.write_bytes(mutate(rng, self.content))
        found = open_records(self.place, self.scans).checksums()
        if found != self.expected:
            raise AssertionError("a damaged cached index was used")


class Bin(BaseTarget):
    """Fuzzing target: read and check changed verification sets, then decode up to eight images."""

    # fmt: off
    tokens = (
        b"(", b"]", b")", b"e", b"a", b"l", b"t", b"\x85", b"\x86", b"\x87", b"\x94", b"N",
        b"R", b"b", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"h\x02", b"h\x05", b"\x88", b"\x89",
        b"cnumpy\nndarray\n", b"cbuiltins\neval\n", b"I1\n", b"U\x02b1", b"K\x01", b"}", b".",
        b"c_codecs\nencode\n", b"cnumpy\ndtype\n", b"0", b"2", b"\x93", b"\x95" + bytes(8),
    )
    # fmt: on

    def prepare(self, folder: Path) -> None:
        from evaluation.pairs import PairsError

        self.refusals, self.path = (PairsError,), folder / "set.bin"
        suffixes = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm")
        encoded = [make_image(k, suffixes[k % len(suffixes)]) for k in range(24)]
        arrays = [np.frombuffer(image, np.uint8) for image in encoded]
        pixels = [np.full((SIDE_PIXELS, SIDE_PIXELS, 3), k, np.uint8) for k in range(24)]
        answers: list[Any] = [k % 2 == 0 for k in range(12)]
        self.seeds = [
            pickle.dumps((images, issame), protocol)
            for protocol in range(6)
            for images in (encoded, arrays, pixels)
            for issame in (answers, np.array(answers), np.array(answers, ">i4"))
        ]

    def case(self, rng: random.Random) -> None:
        from evaluation.pairs import decode_image, read_pairs
        from evaluation.set_check import check_sets

        self.path.write_bytes(mutate(rng, rng.choice(self.seeds), self.tokens))
        pairs, size = read_pairs(self.path), (SIDE_PIXELS, SIDE_PIXELS)
        check_sets({"set": pairs}, size)
        for image in pairs.images[:8]:
            decode_image(image, size, str(self.path))


class Yaml(BaseTarget):
    """Fuzzing target: load a changed configuration file, or changed command-line overrides."""

    # One message can list several problems, and some problems have no value after "got".
    messages_state_value = False

    # fmt: off
    tokens = (
        b"[", b"]", b"{", b"}", b": ", b"- ", b"\n", b"? ", b"&a ", b"*a ", b"<<: ", b"!!int ",
        b"!!python/object:os.system ", b"1e400", b"0x", b"1:2:3", b".nan", b"'", b'"', b"|\n",
        b"# ", b"%", b"2001-99-99", b"${HOME}", b"~", b"null", b"\xff", b"\t", b"a",
    )
    # fmt: on

    def prepare(self, folder: Path) -> None:
        from heads import HEADS
        from launch.config.configuration import ConfigError
        from launch.config.yaml_files import CONFIGS
        from nets import NETS

        self.refusals, self.path = (ConfigError,), folder / "config.yaml"
        self.nets, self.heads = NETS, HEADS
        os.environ.setdefault("FACES_DIR", str(folder))
        self.seeds = [file.read_bytes() for file in sorted(CONFIGS.glob("*.yaml"))]
        self.overrides = (b"data.batch_size=128", b"net.embedding_size=512", b"optim.lr=0.1")

    def case(self, rng: random.Random) -> None:
        from launch.config.cli import load_config

        content = rng.choice(self.seeds)
        overrides = list(self.overrides)
        if rng.random() < 0.7:
            content = mutate(rng, content, self.tokens)
        else:
            place = rng.randrange(len(overrides))
            overrides[place] = mutate(rng, overrides[place], self.tokens).lstrip(b"-")
        self.path.write_bytes(content)
        arguments = [override.decode("utf-8", "replace") for override in overrides]
        load_config(["--cfg", str(self.path), *arguments], self.nets, self.heads)


class Checkpoint(BaseTarget):
    """Fuzzing target: open run folders with one changed file.

    For most changed files of a checkpoint, the manifest states the new hash, so that the reader
    does not refuse the file because of its hash.
    """

    tokens = (b"{", b"[", b"]", b"}", b'"', b"null", b"-1", b"1e999", b"NaN", b",", b"true")

    def prepare(self, folder: Path) -> None:
        from interchange.model import InterchangeError
        from tools.fuzzing.models import save_checkpoint_seed
        from training.checkpoint import CheckpointError
        from training.run_folder import RunFolderError

        self.refusals = (CheckpointError, RunFolderError, InterchangeError, ValueError)
        self.parent = folder / "runs"
        self.model, self.config = save_checkpoint_seed(self.parent / "seed-001")
        self.run = self.parent / "seed-001"
        (self.step,) = (self.run / "checkpoints").iterdir()
        self.seeds = {f.relative_to(self.run): f.read_bytes() for f in self._files()}

    def _files(self) -> list[Path]:
        return [*self.step.iterdir(), self.run / "config.yaml"]

    def case(self, rng: random.Random) -> None:
        from interchange.open_model import open_model
        from interchange.stored_net import build_stored_net
        from launch.config.configuration import differences
        from training.checkpoint import open_checkpoint
        from training.run_folder import choose_run

        for name, content in self.seeds.items():
            (self.run / name).write_bytes(content)
        name = rng.choice([*self.seeds])
        (self.run / name).write_bytes(mutate(rng, self.seeds[name], self.tokens))
        if rng.random() < 0.8 and name.name not in ("manifest.json", "config.yaml"):
            self._fit_manifest()
        if name.name == "config.yaml":
            chosen = choose_run(
                self.parent, "seed", resume=True, config=self.config, differences=differences
            )
            chosen.lock.release()
            return
        checkpoint = open_checkpoint(self.run)
        checkpoint.load_net_parameters(self.model.net)
        checkpoint.load_head_parameters(self.model.head)
        checkpoint.load_momentum(self.model)
        if rng.random() < 0.1 or name.name == "state.json":
            build_stored_net(open_model(self.run))

    def _fit_manifest(self) -> None:
        from training.checkpoint_folders import fingerprint

        path = self.step / "manifest.json"
        manifest = json.loads(path.read_bytes())
        manifest["files"] = {name: fingerprint(self.step / name) for name in manifest["files"]}
        path.write_text(json.dumps(manifest))


class Models(BaseTarget):
    """Fuzzing target: open changed model files, in every format that ``interchange`` reads."""

    # fmt: off
    tokens = (
        b'"', b"{", b"[", b"]", b"}", b"null", b"(1,1)", b"-1", b"Convolution", b"\x80",
        b'"F32"', b'"BF16"', b'"data_offsets":[0,4]', b'"shape":[', b"__metadata__", b"Q", b"R",
        b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem\n",
        b"(", b")", b"t", b"}", b"e", b"u", b"q\x01", b"h\x01", b"K\x01", b".",
        b"J\xff\xff\xff\x7f",
    )
    # fmt: on

    def prepare(self, folder: Path) -> None:
        from interchange.model import InterchangeError
        from interchange.open_model import open_model
        from tools.fuzzing.model_mutation import mutate_model
        from tools.fuzzing.models import save_model_seeds

        self.refusals, self.folder = (InterchangeError,), folder
        save_model_seeds(folder / "seeds")
        self.models: dict[str, dict[str, bytes]] = {}
        for file in sorted((folder / "seeds").iterdir()):
            self.models.setdefault(file.name.partition("-")[0], {})[file.name] = file.read_bytes()
        (folder / "changed").mkdir()
        # Every seed must be accepted.  The calls also import the modules that the cases need.
        for files in self.models.values():
            open_model(folder / "seeds" / sorted(files)[0])
        self.open_model, self.mutate = open_model, mutate_model

    def case(self, rng: random.Random) -> None:
        files = dict(rng.choice([*self.models.values()]))
        name = rng.choice([*files])
        files[name] = self.mutate(rng, name, files[name], self.tokens)
        place = self.folder / "changed"
        for old in place.iterdir():
            old.unlink()
        for each, content in files.items():
            (place / each).write_bytes(content)
        self.open_model(place / sorted(files)[0])


def _check() -> Target:
    from tools.fuzzing.record_targets import Check

    return Check()


def _remote() -> Target:
    from tools.fuzzing.record_targets import Remote

    return Remote()


def _jpeg() -> Target:
    from tools.fuzzing.jpeg import Jpeg

    return Jpeg()


TARGETS: dict[str, Callable[[], Target]] = {
    "records": Records,
    "check": _check,
    "remote": _remote,
    "index": Index,
    "bin": Bin,
    "yaml": Yaml,
    "checkpoint": Checkpoint,
    "models": Models,
    "jpeg": _jpeg,
}

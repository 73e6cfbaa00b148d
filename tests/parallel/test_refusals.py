# SPDX-License-Identifier: Apache-2.0
"""All ranks refuse an invalid run with one message, and no rank hangs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from tests.parallel.ranks import (
    Ranks,
    RunResult,
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


@dataclass
class Fault:
    """Invalid run and a pattern of its message."""

    sentence: str
    records: Path | None = None
    sections: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


Maker = Callable[[Path, Path, Callable[..., Path]], Fault]


def missing_rec(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    return Fault(r"nowhere: no such file", Path("/nowhere"))


def truncated_rec(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    copy = shutil.copytree(records, folder / "records")
    rec = copy / "train.rec"
    os.truncate(rec, rec.stat().st_size // 2)
    return Fault(r"train\.rec: ends before the record of key \d+ .*truncated", copy)


def idx_of_another_rec(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    copy = shutil.copytree(records, folder / "records")
    # The .idx of a smaller set: its offsets are inside the file, but no record starts there.
    other = make(12, 4)
    shutil.copy(other / "train.idx", copy / "train.idx")
    return Fault(r"train\.idx: no record starts at offset \d+ of train\.rec", copy)


def undecodable_image(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    copy = shutil.copytree(records, folder / "records")
    key = 77
    offsets = dict(
        tuple(map(int, line.split("\t"))) for line in (copy / "train.idx").read_text().splitlines()
    )
    rec = bytearray((copy / "train.rec").read_bytes())
    begin, end = offsets[key] + 32, offsets[key + 1]
    rec[begin:end] = bytes(end - begin)
    (copy / "train.rec").write_bytes(rec)
    # A whole epoch, so that the run reaches the image.
    sections = {"train": {"max_steps": 0, "epochs": 1, "log_every": 3, "checkpoint_every": 5}}
    return Fault(rf"the image of key {key} cannot be decoded; fix", copy, sections)


def label_out_of_range(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    sentence = r"label \d+ in the record of key \d+ is out of range, got num_classes=7"
    return Fault(sentence, overrides=["data.num_classes=7"])


def misspelt_key(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    sentence = r"optim\.momentun: unknown key; did you mean 'momentum'\?"
    return Fault(sentence, overrides=["optim.momentun=0.9"])


def batch_larger_than_the_set(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    sentence = r"data\.batch_size: 121 x \d ranks needs \d+ images per step, got 120"
    return Fault(sentence, overrides=["data.batch_size=121"])


def malicious_bin(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    class Touch:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {folder / 'executed'}",)

    (folder / "bad.bin").write_bytes(pickle.dumps(([Touch()], [True]), protocol=2))
    overrides = [f"eval.sets=[{folder / 'bad.bin'}]"]
    return Fault(r"bad\.bin: .*; get the verification set from a source", overrides=overrides)


def undecodable_face_in_a_bin(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    images, issame = pickle.loads((records / "tiny.bin").read_bytes())
    images[11] = images[11].replace(b"\xff\xdb", b"\xff\xfe")  # only decoding finds the damage
    (folder / "torn.bin").write_bytes(pickle.dumps((images, issame), protocol=2))
    overrides = [f"eval.sets=[{folder / 'torn.bin'}]", "train.max_steps=1"]
    return Fault(r"torn\.bin: .*does not decode as an image", overrides=overrides)


def cut_off_face_in_a_bin(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    images, issame = pickle.loads((records / "tiny.bin").read_bytes())
    images[11] = cut_off(images[11])
    (folder / "cut.bin").write_bytes(pickle.dumps((images, issame), protocol=2))
    overrides = [f"eval.sets=[{folder / 'cut.bin'}]", "train.max_steps=1"]
    return Fault(r"cut\.bin: image 1 of pair 5: the image is cut off, got an", overrides=overrides)


def cut_off_image(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    original = open_records(records, folder)
    jpegs = [j.tobytes() for j in RecordReader(original).read(np.arange(len(original)))]
    jpegs[17] = cut_off(jpegs[17])
    copy = make(12, 10, samples=list(zip(original.labels.tolist(), jpegs, strict=True)))
    sections = {"train": {"max_steps": 0, "epochs": 1, "log_every": 3, "checkpoint_every": 5}}
    key = original.keys[17]
    return Fault(rf"the image of key {key} is cut off, got an end-of-image", copy, sections)


def cut_off(jpeg: bytes) -> bytes:
    """Return a JPEG that lacks a part of its data but has an end-of-image marker."""
    return jpeg[: len(jpeg) * 3 // 4] + b"\xff\xd9"


def checkpoint_of_another_net(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    other = write_cfg(folder / "other", records, net={"width": 0.25}, train={"max_steps": 1})
    ended = run(1, training(other))
    assert ended.code == 0, ended.everything
    overrides = [f"train.pretrained={folder / 'other' / 'runs' / 'tiny-001'}"]
    sentence = (
        r"train\.pretrained: the net of \S+ is net\.name=mobilefacenet net\.width=0\.25 net\."
    )
    return Fault(sentence, overrides=overrides)


def folder_without_checkpoint(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    return Fault(r": no checkpoint found", overrides=[f"train.pretrained={folder}"])


def fused_centres_on_two_ranks(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    overrides = ["optim.fused_centres=true"]
    return Fault(
        r"optim\.fused_centres: requires one rank or head\.sharded=true, got 2 ranks; set",
        overrides=overrides,
    )


def fused_centres_without_operators(
    folder: Path, records: Path, make: Callable[..., Path]
) -> Fault:
    overrides = ["optim.fused_centres=true", "run.operators=plain"]
    return Fault(r"optim\.fused_centres: needs the fused operators, got", overrides=overrides)


def native_decoder_without_operators(
    folder: Path, records: Path, make: Callable[..., Path]
) -> Fault:
    overrides = ["data.decode=native", "run.operators=plain"]
    return Fault(
        r"data\.decode: 'native' needs the compiled operators, got none", overrides=overrides
    )


def decoder_of_gpus_without_one(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    overrides = ["data.decode=mixed", "run.device=cpu"]
    return Fault(r"data\.decode: 'mixed' requires a GPU, got none", overrides=overrides)


def bag_with_margin_warmup(folder: Path, records: Path, make: Callable[..., Path]) -> Fault:
    sections = {
        "data": {"batch_size": 6, "images_per_person": 3, "bag": 18},
        "head": {"name": "triplet", "mining": "blocks"},
        "train": {"margin_warmup": "10 %"},
    }
    return Fault(r"data\.bag: mines triplets with the full margin, got", sections=sections)


def file_in_place_of_the_run_folder(
    folder: Path, records: Path, make: Callable[..., Path]
) -> Fault:
    (folder / "runs").write_text("not a folder")
    return Fault(r"runs: the run folder cannot be written, got File exists; choose another")


FAULTS: list[Maker] = [
    missing_rec,
    truncated_rec,
    idx_of_another_rec,
    undecodable_image,
    label_out_of_range,
    batch_larger_than_the_set,
    malicious_bin,
    undecodable_face_in_a_bin,
    cut_off_face_in_a_bin,
    folder_without_checkpoint,
    fused_centres_without_operators,
    decoder_of_gpus_without_one,
    bag_with_margin_warmup,
]
# Faults on two ranks: one of the command line, one of the data, and those that only one rank or a
# later step detects.
ON_TWO = [
    misspelt_key,
    undecodable_image,
    undecodable_face_in_a_bin,
    cut_off_image,
    checkpoint_of_another_net,
    native_decoder_without_operators,
    fused_centres_on_two_ranks,
    file_in_place_of_the_run_folder,
]


def check_refusal(ended: RunResult, sentence: str, code: int = 2) -> None:
    """Check that the ranks printed one message that matches ``sentence``, and no traceback."""
    assert len(re.findall(sentence, ended.rank_output)) == 1, ended.everything
    assert "Traceback" not in ended.rank_output, ended.everything
    if not ended.has_launcher:
        assert ended.code == code, ended.everything
    else:
        assert ended.code != 0, ended.everything
        # horovodrun prints the exit code of the rank that ended first.
        assert f"Exit code: {code}" in ended.launcher_output, ended.everything
    errors = [line for line in ended.lines if line.rank is not None and line.stream == "stderr"]
    assert errors[0].text.startswith("run_train: "), ended.everything


@pytest.fixture(scope="module")
def refused(tiny_records, make_records, tmp_path_factory):
    """Return the results and the folders of the runs with FAULTS and ON_TWO, by ranks and maker."""
    found = {}
    for ranks, makers in ((1, FAULTS), (2, ON_TWO)):
        folders = [tmp_path_factory.mktemp(maker.__name__) for maker in makers]
        faults = [
            maker(folder, tiny_records, make_records)
            for maker, folder in zip(makers, folders, strict=True)
        ]
        commands = [
            training(
                write_cfg(folder, fault.records or tiny_records, **fault.sections), *fault.overrides
            )[1:]
            for fault, folder in zip(faults, folders, strict=True)
        ]
        results = run_several(ranks, tmp_path_factory.mktemp("several"), commands)
        for maker, *rest in zip(makers, faults, results, folders, strict=True):
            found[ranks, maker] = rest
    return found


@pytest.mark.parametrize(
    "ranks, maker",
    [*((1, maker) for maker in FAULTS), *((2, maker) for maker in ON_TWO)],
    ids=lambda value: value if isinstance(value, int) else value.__name__,
)
def test_a_fault_is_refused_with_one_message(ranks, maker, refused):
    fault, ended, folder = refused[ranks, maker]
    check_refusal(ended, fault.sentence)
    assert not (folder / "executed").exists()


def test_a_refusal_on_two_ranks_is_the_exit_code_of_the_launcher(tiny_records, tmp_path):
    fault = misspelt_key(tmp_path, tiny_records, write_cfg)
    ended = run(2, training(write_cfg(tmp_path, tiny_records), *fault.overrides))
    assert ended.has_launcher
    check_refusal(ended, fault.sentence)


def test_data_missing_on_one_rank_are_refused(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, "${FACES}")
    script = f'if [ "$HOROVOD_RANK" = 1 ]; then FACES=/nowhere; else FACES={tiny_records}; fi'
    wrapper = ["sh", "-c", f'{script}; export FACES; exec "$0" "$@"']
    ended = run(2, training(cfg), wrapper=wrapper)
    check_refusal(ended, r"rank 1: /nowhere: no such file")
    assert not (tmp_path / "runs").exists()


def test_different_data_on_one_rank_are_refused(tiny_records, make_records, tmp_path):
    # The same path with other files, as on a second host with an older copy.
    for rank, records in enumerate((tiny_records, make_records(12, 11))):
        (tmp_path / f"host-{rank}").mkdir()
        (tmp_path / f"host-{rank}" / "faces").symlink_to(records)
    cfg = write_cfg(tmp_path, "faces")
    wrapper = ["sh", "-c", f'cd {tmp_path}/host-$HOROVOD_RANK; exec "$0" "$@"']
    ended = run(2, training(cfg), wrapper=wrapper)
    sentence = r"data\.images: must be equal on all ranks, got 120 on rank 0 and 132 on rank 1"
    check_refusal(ended, sentence)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_checkpoint(
    ranks, tiny_records, tmp_path
):
    # The warm-up starts at lr 0, so the first step is harmless; all later steps diverge.
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        optim={"lr": 1e20, "warmup": "8 images"},
        train={"max_steps": 30, "checkpoint_every": 1, "log_every": 3},
    )
    ended, again = run_several(ranks, tmp_path, [training(cfg)[1:]] * 2)
    sentence = r"the loss of step (\d+) is not finite, got nan; the last good checkpoint"
    check_refusal(ended, sentence, code=1)
    assert ranks == 1 or re.search(r"rank \d: the loss", ended.rank_output)
    folder = tmp_path / "runs" / "tiny-001"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed" and "is not finite" in summary["reason"]
    bad = int(re.search(sentence, ended.rank_output)[1])
    # The previous checkpoint is valid: the same command resumes from it and fails again.
    assert f"checkpoint (step {bad - 1}) is kept" in ended.rank_output
    assert resumed_at(again) == bad - 1
    check_refusal(again, sentence, code=1)


def test_a_file_size_limit_leaves_the_last_checkpoint_valid(tiny_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        train={"max_steps": 12, "checkpoint_every": 3, "keep_checkpoints": 20},
    )
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, pausable(cfg), pause_at(6)) as started:
        started.until((folder / "checkpoints" / "step-00000003").exists)
    before = contents(folder / "checkpoints" / "step-00000003")
    latest = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))[-1]

    # Files above 64 KiB fail part-way, as on a full disk; the limit also applies to root.
    wrapper = ["sh", "-c", 'ulimit -f 128; exec "$0" "$@"']
    ended = run(2, training(cfg), wrapper=wrapper)
    check_refusal(ended, rf"cannot be written, got No space left .* valid checkpoint is {latest}")
    assert contents(folder / "checkpoints" / "step-00000003") == before
    assert not list((folder / "checkpoints").glob(".aside-*"))
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"

    ended = run(2, training(cfg))
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == int(latest.removeprefix("step-"))
    assert sorted(read_losses(folder)) == list(range(1, 13))


class SmallDisk:
    """Folder on a file system of 2 MiB, which ``fill`` fills completely."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def clear(self) -> None:
        self._ballast.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _can_mount() -> bool:
    """Return whether this user may mount; try it in a new mount namespace."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if _can_mount():  # root with CAP_SYS_ADMIN; the file size limit above tests the same without it

    @pytest.fixture
    def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
        folder = tmp_path / "disk"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
        yield SmallDisk(folder)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def test_a_full_disk_leaves_the_last_checkpoint_valid(tiny_records, small_disk, tmp_path):
        cfg = write_cfg(tmp_path, tiny_records, run={"dir": str(small_disk.folder)})
        program = training(cfg, "train.max_steps=40", "train.checkpoint_every=10")
        folder = small_disk.folder / "tiny-001"
        with Ranks(1, pausable(*program[2:]), pause_at(10)) as started:
            started.until((folder / "checkpoints" / "step-00000010").exists)
            small_disk.fill()
            started.unpause()
            ended = started.wait()
        check_refusal(ended, r"(metrics\.jsonl|the checkpoint) cannot be written, got No space")
        kept = contents(folder / "checkpoints" / "step-00000010")
        small_disk.clear()
        ended = run(1, program)
        assert ended.code == 0, ended.everything
        assert resumed_at(ended) == 10
        assert kept["manifest.json"] and sorted(read_losses(folder)) == list(range(1, 41))

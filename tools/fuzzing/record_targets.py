# SPDX-License-Identifier: Apache-2.0
"""Fuzzing targets: the check of record sets, and local copies of remote record sets."""

from __future__ import annotations

import random
from pathlib import Path

from pipeline.records.mapped import RecordError
from pipeline.records.writer import write_record_set
from tools.fuzzing.base import SIDE_PIXELS, BaseTarget, make_image
from tools.fuzzing.mutation import mutate

_SIZE = (SIDE_PIXELS, SIDE_PIXELS)
_NAMES = ("train.rec", "train.idx", "property")
_RECORD_TOKENS = (b"\t", b"\n", b",", b"-", b"\x0a\x23\xd7\xce", b"\xff\xd8", b"\xff\xd9", b"\r\n")
_JSON_TOKENS = (b"{", b"[", b"]", b"}", b'"', b"null", b"-1", b"1e999", b"NaN", b",", b"true")


def _write_seed(folder: Path, header: bool) -> dict[str, bytes]:
    folder.mkdir()
    samples = [(k // 3, make_image(k)) for k in range(12)]
    write_record_set(folder, samples, 4, image_size=_SIZE, header=header)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Check(BaseTarget):
    """Fuzzing target: check changed record sets (.rec, .idx, property), and write some reports."""

    # The message "cannot be decoded" contains no value after "got".
    messages_state_value = False

    def prepare(self, folder: Path) -> None:
        from tools.data.check_report import write_report
        from tools.data.record_check import check_set

        self.refusals, self.folder = (RecordError,), folder
        self.seeds = [_write_seed(folder / f"seed-{header}", header) for header in (True, False)]
        (folder / "set").mkdir()
        # Every seed must pass the check.  The check also imports the modules that the cases need.
        for header in (True, False):
            checked = check_set(folder / f"seed-{header}", threads=1, near_duplicates=True)
            if checked.findings.counts["damaged"]:
                raise AssertionError("the check reports damaged images in an unchanged seed set")
        self.check, self.write = check_set, write_report

    def case(self, rng: random.Random) -> None:
        files = dict(rng.choice(self.seeds))
        for name in rng.choice((["train.rec"], ["train.idx"], ["property"], list(files))):
            files[name] = mutate(rng, files[name], _RECORD_TOKENS)
        place, out = self.folder / "set", self.folder / "out"
        for name in _NAMES:
            (place / name).write_bytes(files[name])
        checked = self.check(place, threads=1, near_duplicates=rng.random() < 0.5)
        if rng.random() < 0.1:  # Writing a report is slow, so few cases write one.
            self.write(out, checked)
        if not 0 <= checked.clean_images <= checked.images:
            raise AssertionError(
                "the number of faultless images is below 0 or above the number of all images"
            )


class Remote(BaseTarget):
    """Fuzzing target: a damaged manifest must never change the local copy of a remote set."""

    def prepare(self, folder: Path) -> None:
        self.refusals = (RecordError,)
        self.cache, self.url = folder / "cache", f"file://{folder / 'seed'}"
        self.files = _write_seed(folder / "seed", True)
        self.copy = self._copy()
        self.manifest = self.copy.with_name("manifest.json").read_bytes()

    def _copy(self) -> Path:
        from pipeline.records.remote import copy_records

        return copy_records(self.url, self.cache, say=lambda text: None).rec

    def case(self, rng: random.Random) -> None:
        name = rng.choice(("manifest.json", "manifest.json", "copying.json"))
        content = mutate(rng, self.manifest, _JSON_TOKENS)
        self.copy.with_name("manifest.json").unlink(missing_ok=True)
        self.copy.with_name(name).write_bytes(content)
        place = self._copy()
        if any(place.with_name(n).read_bytes() != self.files[n] for n in _NAMES):
            raise AssertionError("the bytes of the local copy differ from those of the remote set")

# SPDX-License-Identifier: Apache-2.0
"""Shards of a checkpoint: check that they belong together, verify them, read rows of any range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.shard import all_shards
from training.checkpoint_files import DamagedCheckpoint, ShardError, fingerprint, read_json
from training.shard_files import (
    CURE,
    MOMENTUM_SUFFIX,
    PREFIX,
    ShardHeader,
    read_shard,
    shard_name,
)
from training.stored_rows import StoredRows

if TYPE_CHECKING:
    from mxnet_arrays import ArrayPlace

MANIFEST_KEY = "shards"
"""Key of the section of manifest.json that ``manifest_section`` returns."""

ENTRY_KEYS = ("name", "bytes", "sha256", "arrays")
"""Keys of the entry of a shard in the manifest."""


@dataclass(frozen=True)
class ShardSet:
    """Shards of one checkpoint, whose headers match the manifest.

    ``num_classes`` counts the classes of all shards.  ``arrays`` holds the arrays of all classes by
    their names in the files, for example ``fc7_weight``.  ``sampler`` is the saved state of the
    generator that samples classes, or None.
    """

    folder: Path
    run: str
    step: int
    num_classes: int
    entries: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, StoredRows]
    sampler: Any

    def parameters(self) -> dict[str, StoredRows]:
        """Return the head's parameters that the shards hold, by their names in the head.

        Call ``verify`` before you read the parameters.
        """
        return {
            name.removeprefix(PREFIX): rows
            for name, rows in self.arrays.items()
            if not name.endswith(MOMENTUM_SUFFIX)
        }

    def momentum(self) -> dict[str, StoredRows]:
        """Return the momentum in the shards, by the names of the parameters of a model."""
        return {
            f"head.{name.removeprefix(PREFIX).removesuffix(MOMENTUM_SUFFIX)}": rows
            for name, rows in self.arrays.items()
            if name.endswith(MOMENTUM_SUFFIX)
        }

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Compare the files with the manifest: all, or portion ``part`` of ``parts`` portions.

        To read each file on one rank only, pass the rank as ``part`` and the number of ranks as
        ``parts``.

        Raises
        ------
        ShardError
            If the SHA-256 of a file differs from the manifest.
        UnreadableCheckpoint
            If reading a file fails.
        """
        for entry in self.entries[part::parts]:
            path = self.folder / entry["name"]
            expected = {key: entry[key] for key in ("bytes", "sha256")}
            try:
                found = fingerprint(path)
            except DamagedCheckpoint as error:
                raise ShardError(f"{error.fault}; {CURE}") from None
            if found != expected:
                raise ShardError(
                    f"{path}: the shard is damaged, got a size or SHA-256 that differs from "
                    f"manifest.json; {CURE}"
                )


def manifest_section(
    run: str, step: int, num_classes: int, entries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the section of the manifest that describes the shards of a checkpoint.

    ``entries`` are the results of `training.shard_files.write_shard`, rank 0 first.
    """
    return {"run": run, "step": step, "num_classes": num_classes, "files": [*entries]}


def find_shards(folder: Path) -> ShardSet | None:
    """Open the shards of a checkpoint folder; return None for a checkpoint without shards.

    Raises
    ------
    CheckpointError
        As `open_shards` does, or if manifest.json cannot be read.
    """
    section = read_json(folder / "manifest.json").get(MANIFEST_KEY)
    return open_shards(folder, section) if section else None


def open_shards(folder: Path, section: Mapping[str, Any]) -> ShardSet:
    """Open the shards that a section of the manifest describes; read their headers only.

    Raises
    ------
    ShardError
        If a shard is missing, cannot be parsed, or belongs to another run, step or rank.
    UnreadableCheckpoint
        If reading a file fails.
    DamagedCheckpoint
        If the section of the manifest is damaged.
    """
    try:
        entries = [{key: entry[key] for key in ENTRY_KEYS} for entry in section["files"]]
        run, step = str(section["run"]), int(section["step"])
        shards = list(all_shards(int(section["num_classes"]), len(entries)))
        if not entries or [e["name"] for e in entries] != [
            shard_name(s.rank, s.size) for s in shards
        ]:
            raise ValueError("files")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(
            f"{folder / 'manifest.json'}: is damaged, got {type(error).__name__} {error}"
        ) from None
    parts: dict[str, list[tuple[Path, ArrayPlace]]] = {}
    samplers = []
    for shard, entry in zip(shards, entries, strict=True):
        path = folder / entry["name"]
        header, places = read_shard(path)
        _require_origin(path, header, ShardHeader.of(shard, run, step, header.sampler))
        if path.stat().st_size != entry["bytes"]:
            raise ShardError(
                f"{path}: the shard is damaged, got {path.stat().st_size:,} bytes in place of "
                f"{entry['bytes']:,}; {CURE}"
            )
        _require_shapes(path, places, entry["arrays"])
        for name, place in places.items():
            parts.setdefault(name, []).append((path, place))
        samplers.append(header.sampler)
    arrays = {name: StoredRows(places) for name, places in parts.items()}
    return ShardSet(
        folder, run, step, int(section["num_classes"]), entries, arrays, next(iter(samplers), None)
    )


def _require_origin(path: Path, found: ShardHeader, expected: ShardHeader) -> None:
    """Raise ShardError if the run, step, rank or classes of a shard are not the expected ones."""
    if found.run != expected.run:
        raise ShardError(
            f"{path}: the shard must be of the run {expected.run}, got a shard of the run "
            f"{found.run}; {CURE}"
        )
    if found.step != expected.step:
        raise ShardError(
            f"{path}: the shard must be of step {expected.step}, got a shard of step {found.step}; "
            f"{CURE}"
        )
    if found != expected:
        raise ShardError(
            f"{path}: the shard must be number {expected.rank} of {expected.size} with the classes "
            f"{expected.start} to {expected.stop} of {expected.num_classes}, got number "
            f"{found.rank} of {found.size} with the classes {found.start} to {found.stop} of "
            f"{found.num_classes}; {CURE}"
        )


def _require_shapes(
    path: Path, places: Mapping[str, ArrayPlace], expected: Mapping[str, Sequence[int]]
) -> None:
    """Raise ShardError unless a shard has the arrays that the manifest names, in their shapes."""
    found = {name: list(place.shape) for name, place in places.items()}
    if found != expected:
        raise ShardError(
            f"{path}: the shard is damaged: its arrays must have the shapes {expected}, got "
            f"{found}; {CURE}"
        )

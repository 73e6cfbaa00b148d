# SPDX-License-Identifier: Apache-2.0
"""Shard of the class centres on disk: one file of MXNet arrays for each rank.

The array ``about`` holds a JSON text in UTF-8, the fields of `ShardHeader`.  The other arrays have
the rows of the classes ``start`` to ``stop``: ``fc7_weight`` (class centres; the name is that of
InsightFace), ``fc7_weight_momentum``, and for a head with a bias ``fc7_bias`` and
``fc7_bias_momentum``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from atomic_write import atomic_write
from mxnet_arrays import ArrayFileError, ArrayPlace, RowBlocks, find_arrays, write_arrays
from training.checkpoint_files import ABSENT, ShardError, unreadable
from training.stored_rows import StoredRows

if TYPE_CHECKING:
    from heads.shard import Shard

ABOUT = "about"
PREFIX = "fc7_"
MOMENTUM_SUFFIX = "_momentum"
MAX_ABOUT_BYTES = 64 << 20
CURE = "restore the file from a backup, or move its folder away to use an older checkpoint"


@dataclass(frozen=True)
class ShardHeader:
    """Origin of a shard.

    ``run`` is the identifier of the run, ``step`` the step of the checkpoint.  ``rank``, ``size``,
    ``start``, ``stop`` and ``num_classes`` are those of `heads.shard.Shard`.  ``sampler`` is the
    state of the generator that samples classes, None for a head that does not sample.
    """

    run: str
    step: int
    num_classes: int
    rank: int
    size: int
    start: int
    stop: int
    sampler: Any = None

    @classmethod
    def of(cls, shard: Shard, run: str, step: int, sampler: Any = None) -> ShardHeader:
        """Return the header of a shard in the checkpoint of a step of a run."""
        return cls(run=run, step=step, sampler=sampler, **asdict(shard))


def shard_name(rank: int, size: int) -> str:
    """Return the name of the file of a shard, ``fc7.params`` if there is only one shard."""
    return "fc7.params" if size == 1 else f"fc7-{rank:05d}-of-{size:05d}.params"


def write_shard(
    folder: Path, header: ShardHeader, arrays: Mapping[str, RowBlocks]
) -> dict[str, Any]:
    """Write a shard completely or not at all; return its entry in the manifest of the checkpoint.

    Parameters
    ----------
    folder
        Folder of the new file.
    arrays
        Arrays of the rows of the shard, by their names in the file.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    name = shard_name(header.rank, header.size)
    about = np.frombuffer(json.dumps(asdict(header)).encode(), np.uint8)
    with atomic_write(folder / name) as file:
        hashing = _HashingFile(file)
        write_arrays(hashing, {ABOUT: about, **arrays})
    return {
        "name": name,
        "bytes": hashing.size,
        "sha256": hashing.digest.hexdigest(),
        "arrays": {key: list(array.shape) for key, array in arrays.items()},
    }


def read_shard(path: Path) -> tuple[ShardHeader, dict[str, ArrayPlace]]:
    """Read the header of a shard; return it, and the places of the arrays.

    Raises
    ------
    ShardError
        If the file is missing or damaged.
    UnreadableCheckpoint
        If reading the file fails.
    """
    try:
        places = find_arrays(path)
        about = places.pop(ABOUT)
        if about.dtype != np.uint8 or len(about.shape) != 1 or about.shape[0] > MAX_ABOUT_BYTES:
            raise ValueError
        header = ShardHeader(**json.loads(StoredRows([(path, about)])[:].tobytes()))
    except OSError as error:
        if error.errno in ABSENT:
            raise ShardError(f"{path}: the shard is missing, got no such file; {CURE}") from None
        raise unreadable(path, error) from None
    except ArrayFileError as error:
        what = str(error).removeprefix(f"{path}: ").rpartition("; ")[0]
        raise ShardError(f"{path}: the shard is damaged: it {what}; {CURE}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ShardError(
            f"{path}: the shard is damaged, got no valid array {ABOUT!r}; {CURE}"
        ) from None
    return header, places


class _HashingFile:
    """Binary file that computes size and SHA-256 of what is written to it."""

    def __init__(self, file: IO[bytes]):
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: Any) -> None:
        view = memoryview(content)
        if view.nbytes:  # a view with an empty dimension cannot be cast
            view = view.cast("B")
            self._file.write(view)
            self.digest.update(view)
            self.size += view.nbytes

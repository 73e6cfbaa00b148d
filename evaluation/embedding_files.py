# SPDX-License-Identifier: Apache-2.0
"""Read files of embeddings: .npz, .npy, and .bin files of one OpenCV matrix.

Supported .npz files are those of ``python -m evaluation embed`` (``names``, ``embeddings`` and
``norms``) and those of InsightFace's ``ijb_evals.py`` (``embs`` and ``embs_f``, the embeddings of
the mirror images).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from evaluation.opencv_matrices import HEADER, read_shape
from evaluation.row_sources import ArrayRows, FileRows, RowError, RowSource

SUFFIXES = (".npz", ".npy", ".bin")
MAX_DIMENSIONS = 1 << 16
LOCAL_HEADER = struct.Struct("<26xHH")
"""Local header of a member of a zip file; the last two numbers are the lengths of its name and of
its extra fields, which follow the header."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N images.

    Parameters
    ----------
    path
        File of the embeddings.
    rows
        Embedding of each image.
    names
        Name of each image, (N,) str; None if the file has no names.
    norms
        Length of each embedding before normalisation, (N,); None if the file has no lengths.
    mirrored
        Embedding of each mirror image; None if the file has none.
    """

    path: str
    rows: RowSource
    names: np.ndarray | None = None
    norms: np.ndarray | None = None
    mirrored: RowSource | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Member:
    """Array of an .npy file or of an .npz file: its type, its shape and the place of its values."""

    path: str
    name: str
    offset: int | None  # of the values, in bytes; None if they are compressed
    shape: tuple[int, ...]
    dtype: np.dtype


def is_embedding_file(path: str | os.PathLike[str]) -> bool:
    """Return whether the suffix of a path is one of SUFFIXES, those of files of embeddings."""
    return Path(path).suffix.lower() in SUFFIXES


def read_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read a file of embeddings; large arrays stay on the disk until their rows are used.

    Raises
    ------
    RowError, MatrixError
        If the file cannot be read, is damaged, or holds no embeddings.
    """
    path = os.fspath(path)
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise _error(
            path, f"must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}", repr(suffix)
        )
    if not Path(path).is_file():
        got = "no such file" if not Path(path).exists() else "a folder or a special file"
        raise _error(path, "must be a file of embeddings", got)
    if suffix == ".bin":
        shape = read_shape(path)
        return Embeddings(path, FileRows(path, HEADER.size, shape, np.dtype("<f4")))
    try:
        if suffix == ".npy":
            with open(path, "rb") as file:
                member = _read_header(path, "array", file, os.path.getsize(path))
            return Embeddings(path, _rows(member, None))
        return _read_npz(path)
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _error(path, "the file cannot be read", f"{error}"[:200]) from None


def _read_npz(path: str) -> Embeddings:
    with zipfile.ZipFile(path) as archive:
        members = {
            info.filename.removesuffix(".npy"): _find_member(path, archive, info)
            for info in archive.infolist()
            if info.filename in [f"{name}.npy" for name in _KEYS]
        }
    ours, theirs = "embeddings" in members, "embs" in members
    if not ours and not theirs:
        raise _error(path, "must have the array 'embeddings' or 'embs'", "neither of them")
    names = members.get("names")
    labels = None if names is None else _load(names, "U")
    rows = _rows(members["embeddings" if ours else "embs"], labels)
    norms = _load(members["norms"], "f") if ours and "norms" in members else None
    mirrored = None
    if not ours and "embs_f" in members and members["embs_f"].shape[0]:
        mirrored = _rows(members["embs_f"], labels)
    if norms is not None and norms.ndim != 1:
        raise _error(path, f"norms must have the shape ({len(rows)},)", str(norms.shape))
    for name, array in (("names", labels), ("norms", norms), ("embs_f", mirrored)):
        if array is not None and len(array) != len(rows):
            raise _error(path, f"{name} must have {len(rows)} entries", str(len(array)))
    if mirrored is not None and mirrored.dimensions != rows.dimensions:
        raise _error(
            path, f"embs_f must have {rows.dimensions} values per row", str(mirrored.dimensions)
        )
    return Embeddings(path, rows, labels, norms, mirrored)


_KEYS = ("names", "embeddings", "norms", "embs", "embs_f")


def _find_member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        member = _read_header(path, name, file, info.file_size)
    if info.compress_type != zipfile.ZIP_STORED:
        return _Member(path, name, None, member.shape, member.dtype)
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or member.offset is None:
        raise _error(path, f"{name} must be complete", "an end of file")
    start = info.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header))
    return _Member(path, name, start + member.offset, member.shape, member.dtype)


def _read_header(path: str, name: str, file: IO[bytes], size: int) -> _Member:
    """Read the header of an array in NumPy's format; header and values must have `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)  # NumPy refuses headers above 10,000 bytes.
    except (ValueError, EOFError) as error:
        raise _error(path, f"{name} must be a NumPy array", f"{error}".split("\n")[0]) from None
    offset = file.tell()
    if dtype.hasobject:
        raise _error(path, f"{name} must hold numbers or text", "Python objects")
    count = 1
    for length in shape:
        count *= length  # Python integers do not overflow.
    if fortran and min(shape, default=1) > 1:
        raise _error(path, f"{name} must be stored in C order", "Fortran order")
    if offset + count * dtype.itemsize != size:
        raise _error(
            path,
            f"{name} must have {count * dtype.itemsize} bytes for the shape {shape}",
            f"{size - offset} bytes",
        )
    return _Member(path, name, offset, shape, dtype)


def _rows(member: _Member, labels: np.ndarray | None) -> RowSource:
    """Return the rows of an array (N, E) of floating-point numbers; `labels` names the rows."""
    shape = member.shape
    if member.dtype.kind != "f" or len(shape) != 2 or not 1 <= shape[1] <= MAX_DIMENSIONS:
        raise _error(
            member.path,
            f"{member.name} must be floating-point numbers of the shape (N, E)",
            f"{member.dtype} {shape}",
        )
    if not shape[0]:
        raise _error(member.path, "there must be at least 1 embedding", "0")
    if member.offset is None:
        return ArrayRows(_load(member, "f"), member.path, labels)
    return FileRows(member.path, member.offset, (shape[0], shape[1]), member.dtype, labels)


def _load(member: _Member, kind: str) -> np.ndarray:
    """Read an array of text (`kind` "U") or of floating-point numbers (`kind` "f") into memory."""
    if member.dtype.kind != kind or (kind == "U" and len(member.shape) != 1):
        expected = "text of the shape (N,)" if kind == "U" else "floating-point numbers"
        raise _error(
            member.path, f"{member.name} must be {expected}", f"{member.dtype} {member.shape}"
        )
    size = int(np.prod([*member.shape, member.dtype.itemsize], dtype=object))
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if size > limit:
        raise _error(member.path, f"{member.name} must fit into half the memory", f"{size} bytes")
    with np.load(member.path, allow_pickle=False) as arrays:
        try:
            return arrays[member.name]
        except (ValueError, zipfile.BadZipFile) as error:
            raise _error(member.path, f"{member.name} is damaged", f"{error}"[:200]) from None


def find_rows(
    embeddings: Embeddings, wanted: Sequence[str], listing: str | os.PathLike[str]
) -> np.ndarray:
    """Find the embedding of each wanted image; return row numbers (len(wanted),).

    An image is found by the end of its path: the wanted name "Probe/1.jpg" finds the embedding
    with the name "/data/Probe/1.jpg".  In a file without names, row i belongs to wanted image i.

    Parameters
    ----------
    listing
        File that lists the wanted images, for error messages.

    Raises
    ------
    RowError
        If an image has no embedding or several embeddings, or a file without names does not have
        one row for each wanted image.
    """
    if embeddings.names is None:
        if len(embeddings) != len(wanted):
            raise _error(
                embeddings.path,
                f"must have one row for each of the {len(wanted)} images of {os.fspath(listing)}",
                f"{len(embeddings)} rows",
            )
        return np.arange(len(wanted))
    parts = {name.count("/") + 1 for name in wanted}
    rows: dict[str, int] = {}
    for row, name in enumerate(embeddings.names):
        pieces = str(name).split("/")
        for count in parts:
            end = "/".join(pieces[-count:])
            # A negative number marks a name that several rows have.
            rows[end] = row if end not in rows else -1
    found = np.array([rows.get(name, -2) for name in wanted], np.int64)
    if (found < 0).any():
        index = int(np.argmax(found < 0))
        got = "several embeddings" if found[index] == -1 else "no embedding"
        raise _error(
            embeddings.path,
            f"{wanted[index]!r} of {os.fspath(listing)} must have one embedding",
            got,
        )
    return found


def _error(path: str, problem: str, got: str) -> RowError:
    return RowError(
        f"{path}: {problem}, got {got}; name another file, or compute the embeddings again"
    )

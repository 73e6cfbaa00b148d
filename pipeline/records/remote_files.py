# SPDX-License-Identifier: Apache-2.0
"""Find and read the files of a remote record set through fsspec."""

from __future__ import annotations

import base64
import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.records.mapped import RecordError

INSTALL = "python -m pip install --require-hashes -r requirements/remote.txt"
"""Command that installs fsspec."""
# Keys of fsspec's file information whose values change when the file changes, best first.
_HASH_KEYS = ("etag", "ETag", "md5Hash", "md5", "content_md5", "checksum", "crc32c")
_TIME_KEYS = (
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "updated",
    "modified",
    "created",
)
_VERSION_KEYS = (*_HASH_KEYS, "generation", "version_id", *_TIME_KEYS)
_PIECE_BYTES = 1 << 20
_MAX_SHOWN_CHARACTERS = 300
T = TypeVar("T")


class Unreachable(RecordError):
    """Error for a remote file system that does not answer, or answers with an error."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a remote record set."""

    name: str
    path: str
    size: int
    """Size in bytes."""
    version: str
    """Text that changes if the file changes."""
    md5: str
    """MD5 in base64, which Google Cloud Storage states; "" for other storage."""
    has_parts: bool = True
    """Whether the file system answers requests for parts of the file."""

    def has_md5(self, path: Path) -> bool:
        """Return whether a local file has the MD5 of this file; True if the MD5 is unknown."""
        if not self.md5:
            return True
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        return base64.b64encode(digest.digest()).decode() == self.md5


class RemoteSet:
    """Files of a record set on a file system of fsspec.

    Parameters
    ----------
    url
        URL of a folder, or of a .rec.

    Raises
    ------
    RecordError
        If fsspec or the package of the file system is missing, or if the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        self._shown = hide_password(url)
        try:
            fsspec: Any = importlib.import_module("fsspec")
        except ImportError:
            raise RecordError(
                f"{self._shown}: a URL in data.records needs the package fsspec, got none; install "
                f"it: {INSTALL}"
            ) from None
        try:
            self._fs, self._path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            found = re.search(r"[Ii]nstall ([\w.-]*\w)", str(error))
            quoted = re.findall(r'"([\w.-]+)"', str(error))
            package = found[1] if found else " ".join(quoted) or "the package that it names"
            raise RecordError(
                f"{self._shown}: the file system needs another package, got: {_text(error)}; "
                f"install it: python -m pip install {package}"
            ) from None
        except Exception as error:  # file systems raise errors of their own packages
            raise RecordError(
                f"{self._shown}: is no URL of a file system, got: {_text(error)}; write a path, or "
                "a URL such as s3://bucket/folder"
            ) from None

    def find(self) -> dict[str, RemoteFile]:
        """Return the .idx, the .rec and, if it exists, the property file, keyed by file name.

        Raises
        ------
        RecordError
            If the .rec or the .idx does not exist.
        Unreachable
            If the file system answers with another error.
        """
        self._fs.invalidate_cache()
        rec = self._find_rec()
        folder, _, name = rec.rpartition("/")
        paths = {
            name.removesuffix(".rec") + ".idx": rec.removesuffix(".rec") + ".idx",
            "property": f"{folder}/property",
            name: rec,
        }
        files = {}
        for each, path in paths.items():
            info = self._info(path)
            if info is not None:
                files[each] = self._file(each, path, info)
            elif each != "property":
                raise RecordError(
                    f"{self._shown}: has no file {each}, got no such file at {path}; name a folder "
                    "with train.rec and train.idx, or a .rec"
                )
        return files

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Return the bytes of a file from ``start`` to ``end``.

        Raises
        ------
        Unreachable
            If the file system answers with an error or with another number of bytes.
        """
        piece = self._ask(lambda: bytes(self._fs.cat_file(file.path, start=start, end=end)))
        if len(piece) != end - start:
            raise Unreachable(
                f"{self._shown}: {file.name} cannot be read in pieces, got {len(piece)} bytes for "
                f"a request of {end - start} bytes at offset {start}; rerun the command, which "
                "resumes the copy, or copy the set by hand"
            )
        return piece

    def stream(self, file: RemoteFile, start: int, piece_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of a file from ``start`` on, for a server that sends whole files only.

        A piece has at most ``piece_bytes`` bytes.  The server also transfers the bytes before
        ``start``, which are not yielded.

        Raises
        ------
        Unreachable
            If the file system answers with an error.
        """
        with self._ask(lambda: self._fs.open(file.path, "rb", block_size=0)) as source:
            at = 0
            while piece := self._ask(lambda: bytes(source.read(piece_bytes))):
                at += len(piece)
                if at > start:
                    yield piece[max(0, len(piece) - (at - start)) :]

    def _find_rec(self) -> str:
        if self._path.endswith(".rec"):
            return self._path
        folder = self._path.rstrip("/")
        if self._info(f"{folder}/train.rec") is not None:
            return f"{folder}/train.rec"
        try:
            names = self._ask(lambda: self._fs.ls(folder, detail=False))
        except FileNotFoundError:
            names = []
        found = sorted(str(name) for name in names if str(name).endswith(".rec"))
        if len(found) != 1:
            listed = ", ".join(name.rpartition("/")[2] for name in found[:10]) or "none"
            raise RecordError(
                f"{self._shown}: has no train.rec, got .rec files: {listed}; name the .rec itself "
                "in data.records"
            )
        return found[0]

    def _info(self, path: str) -> dict[str, Any] | None:
        """Return the facts about a file; None if the file does not exist."""
        try:
            info = self._ask(lambda: self._fs.info(path))
        except FileNotFoundError:
            return None
        return info if info.get("type", "file") == "file" else None

    def _file(self, name: str, path: str, info: dict[str, Any]) -> RemoteFile:
        size = info.get("size")
        if not isinstance(size, int):
            raise RecordError(
                f"{self._shown}: the file system states no size of {name}, got {size!r}; copy the "
                "set by hand"
            )
        version = next((f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key)), "unknown")
        is_http = {"http", "https"} & set(self._fs.protocol)
        # A server that ignores the range of a request would send the whole file for each piece.
        has_parts = bool(info.get("partial")) if is_http else True
        return RemoteFile(name, path, size, version, str(info.get("md5Hash") or ""), has_parts)

    def _ask(self, question: Callable[[], T]) -> T:
        """Call the file system; turn its errors into Unreachable, except FileNotFoundError."""
        try:
            return question()
        except FileNotFoundError:
            raise
        except Exception as error:  # file systems raise errors of their own packages
            raise Unreachable(
                f"{self._shown}: cannot be read, got: {_text(error)}; check the URL, the network "
                "and the credentials, then rerun the command, which resumes the copy"
            ) from None


def hide_password(url: str) -> str:
    """Return a URL for messages, without the user name and the password."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def _text(error: Exception) -> str:
    """Return the type and the message of an error on one line."""
    message = " ".join(hide_password(str(error)).split())
    return f"{type(error).__name__} {message}".strip()[:_MAX_SHOWN_CHARACTERS]

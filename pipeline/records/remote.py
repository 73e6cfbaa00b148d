# SPDX-License-Identifier: Apache-2.0
"""Copy a record set from a URL to a local folder, once per host.

The folder holds the files of the set and ``manifest.json``, which is written last.  The manifest
has the size, SHA-256 and remote version of each file.  A copy that was interrupted resumes at the
byte where it ended.  All ranks of a host call `copy_records`; the first rank copies, and the
other ranks wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from atomic_write import atomic_write, sync_folder
from pipeline.records.mapped import RecordError
from pipeline.records.remote_files import RemoteFile, RemoteSet, Unreachable, hide_password

MANIFEST, PROGRESS = "manifest.json", "copying.json"
PIECE_BYTES = 1 << 24
"""Number of bytes per request."""
PARALLEL_REQUESTS = 4
SECONDS_PER_LINE = 30.0
_FORMAT = 1
_HASH_PIECE_BYTES = 1 << 20
_GB = 1e9


class LocalCopy(NamedTuple):
    """Local copy of a remote record set."""

    rec: Path
    notices: tuple[str, ...]
    """Sentences for the log."""


def copy_records(
    url: str,
    cache: Path,
    *,
    say: Callable[[str], None],
    announces_wait: bool = True,
) -> LocalCopy:
    """Return the local copy of a remote record set; copy the files unless the copy is current.

    Parameters
    ----------
    url
        URL of a folder with train.rec (or one .rec of another name), or of a .rec, for any file
        system of fsspec.
    cache
        Folder for copies, created if missing.
    say
        Function that prints a sentence about the progress.
    announces_wait
        Whether to call ``say`` if another process copies the set at this time.

    Raises
    ------
    RecordError
        If a package is missing, if the files cannot be found or read, if a file changes during the
        copy or has a wrong size or hash, or if the folder cannot be written.
    """
    name = re.sub(r"[^\w.-]+", "_", url.rstrip("/").rpartition("/")[2])[:60].strip("._") or "set"
    folder = cache / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    shown = hide_password(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(
            folder, f"waiting for another process that copies {shown}", say, announces_wait
        ):
            return _Copy(url, shown, folder, say).update()
    except OSError as error:
        raise RecordError(
            f"{folder}: the copy of {shown} cannot be written, got {error.strerror or error}; "
            "free disk space or choose another folder with data.remote_cache"
        ) from None


@contextmanager
def _locked(
    folder: Path, text: str, say: Callable[[str], None], announces_wait: bool
) -> Iterator[None]:
    """Lock a folder against other processes of this host; wait while one of them holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if announces_wait:
                say(text)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a killed process holds no lock
        yield
    finally:
        os.close(descriptor)


class _Copy:
    """Local copy of one set; the caller holds the lock of its folder."""

    def __init__(self, url: str, shown: str, folder: Path, say: Callable[[str], None]) -> None:
        self._url, self._shown, self._folder, self._say = url, shown, folder, say
        self._notices: list[str] = []

    def update(self) -> LocalCopy:
        """Copy what is missing or has changed; return the copy."""
        manifest = self._read(MANIFEST)
        try:
            remote = RemoteSet(self._url)
            files = remote.find()
        except Unreachable as error:
            if manifest is None or self._damaged(manifest):
                raise
            problem = str(error).partition("; ")[0]
            self._notices.append(f"{problem}; the local copy of {manifest['copied']} is used")
            return self._result(manifest)
        versions = _versions(files)
        if manifest is not None:
            if _stored_versions(manifest) == versions:
                damaged = self._damaged(manifest)
                if not damaged:
                    return self._result(manifest)
                self._note(
                    f"the local copies of {', '.join(damaged)} have changed, so the set was copied "
                    "again"
                )
            else:
                self._note(
                    f"the files have changed since {manifest['copied']}, so they were copied again"
                )
        self._prepare(versions)
        hashes = self._copy_all(remote, files)
        if _versions(remote.find()) != versions:
            (self._folder / PROGRESS).unlink()
            raise RecordError(
                f"{self._shown}: changed during the copy, got files of another version; rerun the "
                "command when the files are complete"
            )
        return self._result(self._finish(files, hashes))

    def _note(self, what: str) -> None:
        self._notices.append(f"{self._shown}: {what}")

    def _read(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file of the folder; None if it is missing or damaged."""
        try:
            found = json.loads((self._folder / name).read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return found if _is_record(found, with_hashes=name == MANIFEST) else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with atomic_write(self._folder / name, "w") as file:
            json.dump({"format": _FORMAT, "url": self._shown, **content}, file, indent=1)

    def _damaged(self, manifest: dict[str, Any]) -> list[str]:
        """Return the names of the local files that are missing or differ from the manifest.

        A file of the right size is read and hashed only if its modification time differs from that
        in the manifest.
        """
        damaged, is_touched = [], False
        for name, stored in manifest["files"].items():
            path = self._folder / name
            if not path.is_file() or path.stat().st_size != stored["size"]:
                damaged.append(name)
            elif path.stat().st_mtime_ns != stored["mtime_ns"]:
                if hash_file(path).hexdigest() != stored["sha256"]:
                    damaged.append(name)
                stored["mtime_ns"], is_touched = path.stat().st_mtime_ns, True
        if is_touched and not damaged:
            self._write(MANIFEST, {key: manifest[key] for key in ("copied", "files")})
        return damaged

    def _prepare(self, versions: dict[str, dict[str, Any]]) -> None:
        """Remove the manifest; also remove all files unless a copy of these versions can resume."""
        (self._folder / MANIFEST).unlink(missing_ok=True)
        progress = self._read(PROGRESS)
        if progress is not None and progress["files"] == versions:
            return
        (self._folder / PROGRESS).unlink(missing_ok=True)
        for path in self._folder.iterdir():
            if path.is_file():
                path.unlink()
        self._write(PROGRESS, {"files": versions})

    def _copy_all(self, remote: RemoteSet, files: dict[str, RemoteFile]) -> dict[str, str]:
        """Copy all files to temporary files; return their SHA-256."""
        copied = {}
        for name in files:
            # A process that was killed before it wrote the manifest may have renamed the file.
            if (self._folder / name).is_file():
                os.replace(self._folder / name, self._part(name))
            part = self._part(name)
            if part.is_file() and part.stat().st_size > files[name].size:
                part.unlink()
            copied[name] = part.stat().st_size if part.is_file() else 0
        total = sum(file.size for file in files.values())
        needed = total - sum(copied.values())
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise RecordError(
                f"{self._folder}: the copy of {self._shown} needs {needed / _GB:.1f} GB more, got "
                f"{free / _GB:.1f} GB of free disk space; free disk space or choose another folder "
                "with data.remote_cache"
            )
        resumes = f" ({(total - needed) / _GB:.1f} GB already copied)" if needed < total else ""
        self._say(f"copying {self._shown} to {self._folder}: {total / _GB:.1f} GB{resumes}")
        return {name: self._copy_file(remote, file) for name, file in files.items()}

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.part"

    def _copy_file(self, remote: RemoteSet, file: RemoteFile) -> str:
        """Append the missing bytes of one file to its temporary file; return its SHA-256."""
        path = self._part(file.name)
        digest = hash_file(path) if path.is_file() else hashlib.sha256()
        start = path.stat().st_size if path.is_file() else 0
        last_line_s = time.monotonic()
        with path.open("ab") as out:
            for piece in _pieces(remote, file, start):
                out.write(piece)
                digest.update(piece)
                if time.monotonic() - last_line_s >= SECONDS_PER_LINE:
                    last_line_s = time.monotonic()
                    done = out.tell() / max(1, file.size)
                    self._say(f"copying {self._shown}: {file.name} {done:.0%}")
            out.flush()
            os.fsync(out.fileno())
        if path.stat().st_size != file.size or not file.has_md5(path):
            size = path.stat().st_size
            path.unlink()
            raise RecordError(
                f"{self._shown}: the copy of {file.name} is damaged (wrong size or MD5), got "
                f"{size} of {file.size} bytes; rerun the command"
            )
        return digest.hexdigest()

    def _finish(self, files: dict[str, RemoteFile], hashes: dict[str, str]) -> dict[str, Any]:
        """Rename the temporary files, and write the manifest."""
        stored = {}
        for name, file in files.items():
            path = self._folder / name
            os.replace(self._part(name), path)
            stored[name] = {
                "size": file.size,
                "version": file.version,
                "sha256": hashes[name],
                "mtime_ns": path.stat().st_mtime_ns,
            }
        sync_folder(self._folder)
        manifest = {"copied": time.strftime("%Y-%m-%d %H:%M:%S %z"), "files": stored}
        self._write(MANIFEST, manifest)
        (self._folder / PROGRESS).unlink(missing_ok=True)
        return manifest

    def _result(self, manifest: dict[str, Any]) -> LocalCopy:
        (name,) = (name for name in manifest["files"] if name.endswith(".rec"))
        return LocalCopy(self._folder / name, tuple(self._notices))


def _is_record(found: Any, with_hashes: bool) -> bool:
    """Return whether parsed JSON is a manifest or a progress file, as this module writes them.

    ``with_hashes`` is True for a manifest.
    """
    if not (isinstance(found, dict) and found.get("format") == _FORMAT):
        return False
    files, types = found.get("files"), {"size": int, "version": str}
    if with_hashes:
        types |= {"sha256": str, "mtime_ns": int}
        if not isinstance(found.get("copied"), str):
            return False
    return isinstance(files, dict) and all(
        isinstance(stored, dict) and all(isinstance(stored.get(k), t) for k, t in types.items())
        for stored in files.values()
    )


def _versions(files: dict[str, RemoteFile]) -> dict[str, dict[str, Any]]:
    return {name: {"size": f.size, "version": f.version} for name, f in files.items()}


def _stored_versions(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"size": stored["size"], "version": stored["version"]}
        for name, stored in manifest["files"].items()
    }


def _pieces(remote: RemoteSet, file: RemoteFile, start: int) -> Iterator[bytes]:
    """Yield the bytes of a remote file from ``start`` on; several requests run at a time."""
    if not file.has_parts:
        yield from remote.stream(file, start, PIECE_BYTES)
        return
    starts = range(start, file.size, PIECE_BYTES)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for first in range(0, len(starts), PARALLEL_REQUESTS):
            yield from pool.map(
                lambda at: remote.read(file, at, min(at + PIECE_BYTES, file.size)),
                starts[first : first + PARALLEL_REQUESTS],
            )


def hash_file(path: Path) -> Any:
    """Return a hashlib object with the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_PIECE_BYTES):
            digest.update(piece)
    return digest

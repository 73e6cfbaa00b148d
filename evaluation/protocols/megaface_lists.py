# SPDX-License-Identifier: Apache-2.0
"""Lists of the MegaFace challenge: probes, distractors and mislabelled images.

InsightFace's ``facescrub_lst`` and ``megaface_lst`` have one relative path per line.  The
challenge's own lists are JSON files with the key "path".  InsightFace's noise files list images
that are mislabelled: ``facescrub_noises.txt`` by file name, ``megaface_noises.txt`` by path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.text_lists import ListError, bad_line, check_file, read_lines

PROBE_PARTS = 2
"""Number of parts of a probe's path: person/image."""
DISTRACTOR_PARTS = 3
"""Number of parts of a distractor's path: folder/folder/image."""
MAX_JSON_BYTES = 1 << 28
"""Largest size of a JSON list; a list of a million paths has 40 MB."""


def read_image_list(path: str | os.PathLike[str], parts: int) -> list[str]:
    """Read a list of images; return the last `parts` parts of each path.

    Parameters
    ----------
    path
        Text file with one path per line, or a JSON file of the challenge with the key "path".

    Raises
    ------
    ListError
        If the file cannot be read, a path has fewer than `parts` parts, or two returned paths are
        the same.
    """
    entries = _read_json(path) if _is_json(path) else read_lines(path)
    unit, units = ("entry", "entries") if _is_json(path) else ("line", "lines")
    found: dict[str, int] = {}
    for number, text in entries:
        pieces = text.replace("\\", "/").split("/")[-parts:]
        if len(pieces) < parts or not all(pieces) or ".." in pieces:
            shape = "/".join(["folder"] * (parts - 1) + ["image"])
            raise bad_line(
                path,
                number,
                f"must be a path {shape}, got {text[:80]!r}",
                "correct the list",
                unit=unit,
            )
        name = "/".join(pieces)
        if name in found:
            raise bad_line(
                path,
                number,
                f"must differ from all other {units}, got {name[:80]!r} as in {unit} {found[name]}",
                f"remove one of the two {units}",
                unit=unit,
            )
        found[name] = number
    return list(found)


def _is_json(path: str | os.PathLike[str]) -> bool:
    """Return whether a list is JSON, such as the challenge's NAME.json and NAME.json_SIZE_SET."""
    return ".json" in Path(path).name


def _read_json(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield the pair (number, path) for each entry of a JSON list, numbered from 1."""
    check_file(path, MAX_JSON_BYTES)
    try:
        content: Any = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ListError(
            f"{os.fspath(path)}: must be JSON, got {str(error)[:100]!r}; correct the file"
        ) from None
    paths = content.get("path") if isinstance(content, dict) else None
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise ListError(
            f"{os.fspath(path)}: must have the key 'path' with a list of paths, got "
            f"{type(paths).__name__}; use a template list of the challenge"
        )
    yield from enumerate(paths, 1)


def read_probe_noises(path: str | os.PathLike[str]) -> set[str]:
    """Read the file names of mislabelled probes; a line that begins with "#" is a comment."""
    return {text.split("/")[-1] for _, text in read_lines(path) if not text.startswith("#")}


def read_distractor_noises(path: str | os.PathLike[str]) -> set[str]:
    """Read the paths of mislabelled distractors: those that show a probe's person.

    A line is a path, or has several fields separated by tabs, of which the second is the path.

    Raises
    ------
    ListError
        If the file cannot be read, or a path has fewer than DISTRACTOR_PARTS parts.
    """
    found = set()
    for number, text in read_lines(path):
        if text.startswith("#"):
            continue
        fields = text.split("\t")
        name = fields[1] if len(fields) > 1 else fields[0]
        pieces = name.strip().split("/")
        if len(pieces) < DISTRACTOR_PARTS:
            raise bad_line(
                path,
                number,
                f"must be a path folder/folder/image, got {name[:80]!r}",
                "correct the list",
            )
        found.add("/".join(pieces[-DISTRACTOR_PARTS:]))
    return found

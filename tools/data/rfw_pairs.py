# SPDX-License-Identifier: Apache-2.0
"""Read the pairs of all groups of Racial Faces in the Wild (RFW) from its folder ``txts``.

The folder holds GROUP/GROUP_pairs.txt for each group (African, Asian, Caucasian, Indian), with ten
folds of pairs in the form of LFW.  Wang et al., "Racial Faces in the Wild", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch.config.printable_text import printable
from tools.data.protocol_files import read_protocol
from tools.data.protocol_pairs import FOLDS, ProtocolPair

SUFFIX = "_pairs.txt"


def find_pair_files(folder: Path) -> dict[str, Path]:
    """Return the file of pairs of each group of RFW in a folder; {} for any other folder."""
    if not folder.is_dir():
        return {}
    files = {entry.name: entry / f"{entry.name}{SUFFIX}" for entry in sorted(folder.iterdir())}
    return {name: file for name, file in files.items() if file.is_file()}


def read_rfw(folder: Path) -> list[ProtocolPair]:
    """Read the pairs of all groups; fold i of the result has fold i of every group.

    The path of an image begins with the name of its group.

    Raises
    ------
    ValueError
        If a file is malformed, or has fewer pairs than folds.
    """
    found = {}
    for group, file in find_pair_files(folder).items():
        found[group] = read_protocol(file, "lfw")
        if len(found[group]) < FOLDS:
            raise ValueError(
                f"{printable(file)}: must have at least {FOLDS} pairs, got {len(found[group])}; "
                "correct the file"
            )
    ordered: list[ProtocolPair] = []
    for fold in range(FOLDS):
        for group, pairs in found.items():
            first, last = (len(pairs) * (fold + step) // FOLDS for step in (0, 1))
            ordered += [
                pair._replace(one=f"{group}/{pair.one}", two=f"{group}/{pair.two}")
                for pair in pairs[first:last]
            ]
    return ordered


def name_groups(pairs: Sequence[ProtocolPair]) -> list[str]:
    """Return the group of each image of the pairs of `read_rfw`, two per pair."""
    return [path.partition("/")[0] for pair in pairs for path in (pair.one, pair.two)]

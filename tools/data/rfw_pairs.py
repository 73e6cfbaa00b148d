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
from tools.data.protocol_pairs import FOLDS, ProtocolPair, interleave_folds

SUFFIX = "_pairs.txt"


def find_pair_files(folder: Path) -> dict[str, Path]:
    """Return the pairs file of each group in a folder of RFW; {} for any other folder."""
    if not folder.is_dir():
        return {}
    files = {entry.name: entry / f"{entry.name}{SUFFIX}" for entry in sorted(folder.iterdir())}
    return {name: file for name, file in files.items() if file.is_file()}


def read_rfw(folder: Path) -> list[ProtocolPair]:
    """Read the pairs of all groups; fold i of the result contains fold i of every group.

    The path of an image begins with the name of its group.

    Raises
    ------
    ValueError
        If a file is malformed, or has fewer than ten pairs, one per fold.
    """
    groups: list[list[ProtocolPair]] = []
    for group, file in find_pair_files(folder).items():
        pairs = read_protocol(file, "lfw")
        if len(pairs) < FOLDS:
            raise ValueError(
                f"{printable(file)}: must have at least {FOLDS} pairs, got {len(pairs)}; "
                "correct the file"
            )
        groups.append(
            [pair._replace(one=f"{group}/{pair.one}", two=f"{group}/{pair.two}") for pair in pairs]
        )
    return interleave_folds(*groups)


def name_groups(pairs: Sequence[ProtocolPair]) -> list[str]:
    """Return two names for each pair of `read_rfw`: the groups of the two images."""
    return [path.partition("/")[0] for pair in pairs for path in (pair.one, pair.two)]

# SPDX-License-Identifier: Apache-2.0
"""Shuffle a record set on disk, for the window reader.

python tools/shuffle_records.py RECORDS OUT [--seed N]

OUT gets train.rec, train.idx and property with the same JPEG bytes and labels in random order,
without header and identity records.  ``data.reader=window`` on it reads in sequence and mixes
well; what random access cannot do on slow disks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pipeline.record_writer import write_record_set
from pipeline.records import RecordReader, RecordSet, open_records

_CHUNK = 1024  # records read at a time


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path, help="folder with train.rec, or a .rec")
    parser.add_argument("out", type=Path, help="folder of the shuffled set")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    arguments = parser.parse_args()
    try:
        count = shuffle(arguments.records, arguments.out, arguments.seed)
    except (ValueError, OSError) as error:
        print(f"shuffle_records: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: {count} images in random order")
    return 0


def shuffle(source: Path, out: Path, seed: int) -> int:
    """Write the images of ``source`` to ``out`` in random order; return their number."""
    out.mkdir(parents=True, exist_ok=True)
    records = open_records(source, out)
    if records.rec.parent.resolve() == out.resolve():
        raise ValueError(f"{out}: is the folder of the set itself; choose another one")
    return write_record_set(
        out, _shuffled(records, seed), records.num_classes, records.image_size, header=False
    )


def _shuffled(records: RecordSet, seed: int) -> Iterator[tuple[int, bytes]]:
    reader = RecordReader(records)
    order = np.random.default_rng(seed).permutation(len(records))
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        for row, jpeg in zip(rows, reader.read(rows), strict=True):
            yield int(records.labels[row]), jpeg.tobytes()


if __name__ == "__main__":
    sys.exit(main())

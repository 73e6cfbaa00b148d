# SPDX-License-Identifier: Apache-2.0
"""Shuffle record sets on disk into one, for the window reader.

python tools/shuffle_records.py RECORDS [RECORDS ...] OUT [--seed N] [--labels shared]

OUT gets train.rec, train.idx and property with the same JPEG bytes in random order, without header
and identity records.  The labels of one set stay; those of several are stacked, or shared, as with
data.labels, and classes.json says which person each one is.  ``data.reader=window`` on it reads in
sequence and mixes well; what random access cannot do on slow disks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Scripts are started by their path: put the root of the project on the module path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pipeline.record_reader import RecordReader
from pipeline.record_writer import write_record_set
from pipeline.records import RecordSet, open_records
from training.run_folder import write_classes

_CHUNK = 1024  # records read at a time


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path, nargs="+", help="folders with train.rec, or .rec")
    parser.add_argument("out", type=Path, help="folder of the shuffled set")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    parser.add_argument(
        "--labels", choices=("stacked", "shared"), default="stacked", help="of several sets"
    )
    arguments = parser.parse_args()
    try:
        count = shuffle(arguments.records, arguments.out, arguments.seed, arguments.labels)
    except (ValueError, OSError) as error:
        print(f"shuffle_records: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: {count} images in random order")
    return 0


def shuffle(sources: Sequence[Path], out: Path, seed: int, labels: str = "stacked") -> int:
    """Write the images of ``sources`` to ``out`` in random order; return their number."""
    out.mkdir(parents=True, exist_ok=True)
    records = open_records(sources, out, labels=labels)
    if any(rec.parent.resolve() == out.resolve() for rec in records.files):
        raise ValueError(f"{out}: is the folder of the set itself; choose another one")
    if records.origins is not None:
        write_classes(out, records.files, records.origins)
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

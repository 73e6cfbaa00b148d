# SPDX-License-Identifier: Apache-2.0
"""Count the different identities per batch, for each reader of the data pipeline.

python tools/batch_mixing.py

The readers are the values of the setting data.reader: random (a permutation of all images), blocks
(blocks of consecutive images in random order, shuffled within windows) and window (a sequential
scan through a shuffle buffer).  The tool compares the counts with the expected count for a uniform
random permutation.  It reads the record set of ``--records``.  Without this option, it makes a
small set in which the images of an identity are adjacent, which is the order that is hardest to
mix.  The tool measures no time.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from launch.config.paths import home_path
from pipeline.loader import build_loader
from pipeline.records.open import RecordSet, open_records
from pipeline.records.writer import write_record_set

PEOPLE, IMAGES_PER_PERSON = 1000, 30


def main() -> None:
    """Count the different identities per batch for each reader, and print the mean counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--records", help="folder with an InsightFace record set (default: make a small set)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=128, help="number of images per batch (default: 128)"
    )
    parser.add_argument(
        "--epochs", type=int, default=2, help="number of epochs to read (default: 2)"
    )
    parser.add_argument(
        "--windows",
        type=int,
        nargs="+",
        default=[1024, 4096, 16384],
        help="window sizes in images for the readers blocks and window (default: 1024 4096 16384)",
    )
    parser.add_argument(
        "--json", type=home_path, help="JSON file for a description of the machine and the results"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not arguments.records:
            write_record_set(scratch, _plain_images(), PEOPLE)
        records = open_records(arguments.records or scratch, scratch)
        rows = list(
            _rows(records, arguments.batch_size, arguments.epochs, arguments.windows, scratch)
        )
    expected = rows[0]["people_per_batch"]
    print(
        f"{len(records)} images of {records.num_classes} identities, {arguments.batch_size} images "
        "per batch"
    )
    for row in rows:
        row["of_uniform"] = row["people_per_batch"] / expected
        print(f"{row['name']:32} {row['people_per_batch']:8.2f}  {row['of_uniform']:.4f}")
    if arguments.json:
        machine = {"platform": platform.platform(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def _rows(
    records: RecordSet, batch_size: int, epochs: int, windows: list[int], scratch: str
) -> Iterator[dict]:
    steps = epochs * (len(records) // batch_size)
    yield {
        "name": "limit uniform permutation",
        "people_per_batch": _expected_people(records, batch_size),
    }
    yield {
        "name": "ours random-access",
        "people_per_batch": _people_per_batch(records, batch_size, steps, reader="random"),
    }
    for window in windows:
        for reader in ("blocks", "window"):
            people = _people_per_batch(
                records, batch_size, steps, reader=reader, window=window, index_folder=scratch
            )
            yield {"name": f"ours {reader} of {window}", "people_per_batch": people}


def _people_per_batch(records: RecordSet, batch_size: int, steps: int, **options: Any) -> float:
    loader = build_loader("dali", records, batch_size, threads=2, **options)
    people = [len(np.unique(next(loader).label.asnumpy())) for _ in range(steps)]
    loader.close()
    return float(np.mean(people))


def _expected_people(records: RecordSet, batch_size: int) -> float:
    """Return the expected number of different identities in a random batch.

    The batch consists of B images, drawn without replacement from all N images.  An identity with n
    images is in the batch with the probability `1 - C(N - n, B) / C(N, B)`, where `C(a, b)` is the
    binomial coefficient "a choose b".
    """
    total = len(records)
    drawn = np.arange(batch_size)
    missing = [
        np.exp(np.log1p(-count / (total - drawn)).sum()) for count in np.bincount(records.labels)
    ]
    return float(np.sum(1 - np.array(missing)))


def _plain_images() -> Iterator[tuple[int, bytes]]:
    grey = cv2.imencode(".jpg", np.full((112, 112, 3), 127, np.uint8))[1].tobytes()
    for person in range(PEOPLE):
        for _ in range(IMAGES_PER_PERSON):
            yield person, grey


if __name__ == "__main__":
    main()

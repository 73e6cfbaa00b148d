# SPDX-License-Identifier: Apache-2.0
"""Open a record set as a rank does, for benchmarks/record_index.py.

``python -m benchmarks.steps.record_opening RECORDS SCRATCH random|blocks|index`` prints the
measured seconds and memory as a line of JSON.
"""

from launch.ranks.malloc import keep_memory

KEEPS_MEMORY = keep_memory()  # As in run_train.py, call it before other imports start threads.

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  A training run also imports OpenCV before it opens a record set.
import numpy as np

from pipeline.records import RecordSet, open_records
from pipeline.records.index_cache import image_index
from pipeline.sampling.augmentation import Augmentation, choose_params
from pipeline.sampling.epoch_orders import epoch_order, rank_rows
from pipeline.sampling.samplers import BlockSampler

SEED, BLOCK_IMAGES, WINDOW_IMAGES, LOOK_UP_IMAGES = 1, 128, 16_384, 4096
FIRST_EPOCH_IMAGES = 1 << 18
DIGEST_ROWS = 10**6


def main(path: str, scratch: str, what: str) -> None:
    """Open a record set, work with its index, and print the seconds and the memory as JSON.

    If ``what`` is "random" or "blocks", compute the order in which the reader of that name reads
    the images of two epochs.  If ``what`` is "index", write the .idx file that a run with
    data.reader=window needs.
    """
    epoch_order(100, SEED, 0)
    Path("/proc/self/clear_refs").write_text("5")  # This resets the peak memory, VmHWM.
    before = memory_mib()
    before[3] = before[0]
    records, open_s = timed(lambda: open_records(path, scratch))
    answer: dict[str, Any] = {
        "open": open_s,
        "images": len(records),
        "keeps": KEEPS_MEMORY,
        "digest": "",
    }
    if what == "index":
        _, answer["seconds"] = timed(lambda: image_index(records, Path(scratch)))
    else:
        order_of = order_function(records, what)
        order = order_of(0)
        answer["digest"] = digest(order)
        look_up(records, order[:FIRST_EPOCH_IMAGES])
        del order  # A training run also releases the order of an epoch before the next epoch.
        order, answer["seconds"] = timed(lambda: order_of(1))
        look_up(records, order)
    answer["memory"] = (memory_mib() - before).tolist()
    print(json.dumps(answer))


def order_function(records: RecordSet, what: str) -> Callable[[int], np.ndarray]:
    """Return a function from an epoch to the order of its images, for the reader ``what``."""
    if what == "blocks":
        sampler = BlockSampler(records, 1, block=BLOCK_IMAGES, window=WINDOW_IMAGES, seed=SEED)
        return sampler.order
    return lambda epoch: epoch_order(len(records), SEED, epoch)


def digest(order: np.ndarray) -> str:
    """Return a hash of about DIGEST_ROWS evenly spaced entries of an order of images."""
    return hashlib.sha256(order[:: max(1, len(order) // DIGEST_ROWS)].tobytes()).hexdigest()


def look_up(records: RecordSet, order: np.ndarray) -> None:
    """Look up offset, label and augmentation of images in the given order, as a loader does."""
    for start in range(0, len(order), LOOK_UP_IMAGES):
        rows = rank_rows(order, start, LOOK_UP_IMAGES, 0, 1)
        choose_params(Augmentation(), records.ids(rows), 1, 1, (112, 112))
        records.offsets[rows], records.labels[rows]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return its result and the seconds of the call."""
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start


def memory_mib() -> np.ndarray:
    """Return four numbers in MiB: resident, private, shared and peak memory of this process."""
    with open("/proc/self/status") as lines:
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if " kB" in line}
    return np.array([sizes[name] for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])

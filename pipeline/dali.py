# SPDX-License-Identifier: Apache-2.0
"""The DALI graphs: the only importer of nvidia.dali; knows no mxnet.

``DecodeGraph`` turns JPEG bytes and mirror flags into normalised float images, on the CPU or the
GPU with the same code.  ``WindowReader`` runs ``fn.readers.mxnet`` and gives bytes with their
place in the .rec, so that both ways to read share one decode graph and one mirror decision.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Horovod loads itself, and with it libmxnet, for the whole process to see.  DALI's libraries would
# then find MXNet's JPEG decoder in the place of their own and corrupt the heap.  Loaded first,
# they are bound to their own.
if "nvidia.dali" not in sys.modules and "horovod.mxnet" in sys.modules:
    raise ImportError("pipeline.dali: import it before launch.comm.connect() loads Horovod")

import nvidia.dali.fn as fn
from nvidia.dali import Pipeline, pipeline_def, types

MEAN, STD = 127.5, 128.0
"""Pixels x of 0 to 255 are delivered as (x - MEAN) / STD."""

JPEG_BYTES_HINT = 16384  # of a 112x112 face at quality 95, generously


@pipeline_def
def _decode_graph(decode: str) -> Any:
    """JPEG bytes and mirror flags -> float32 (3, H, W), RGB."""
    jpeg = fn.external_source(name="jpeg", dtype=types.UINT8, ndim=1)
    mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0)
    image = fn.decoders.image(
        jpeg, device="mixed" if decode == "mixed" else "cpu", output_type=types.RGB
    )
    return fn.crop_mirror_normalize(
        image,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[MEAN] * 3,
        std=[STD] * 3,
        mirror=mirror,
    )


class DecodeGraph:
    """A queue of batches on their way from JPEG bytes to normalised images.

    Parameters
    ----------
    batch_size
        Images per batch B.
    decode
        "cpu", or "mixed" for GPUs.
    threads
        Worker threads.
    depth
        Batches in the queue.
    device_id
        GPU of this rank, None without one.
    """

    def __init__(
        self, batch_size: int, decode: str, threads: int, depth: int, device_id: int | None
    ):
        self._fed, self._depth = 0, depth
        self._pipeline: Pipeline = _decode_graph(
            decode,
            batch_size=batch_size,
            num_threads=threads,
            device_id=device_id,
            prefetch_queue_depth=depth,
        )
        self._pipeline.build()

    def feed(self, jpegs: Sequence[np.ndarray], mirror: np.ndarray) -> None:
        """Put a batch in; at most ``depth`` may be under way, and as many before the first take."""
        self._pipeline.feed_input("jpeg", list(jpegs))
        self._pipeline.feed_input("mirror", mirror.astype(np.int32))
        self._fed += 1
        if self._fed >= self._depth:  # the first call of schedule_run starts the whole queue
            self._pipeline.schedule_run()

    def take(self) -> Any:
        """Wait for the oldest batch; return its images, a DALI tensor list.

        It stays valid until ``release``.

        Raises
        ------
        RuntimeError
            If a picture of some batch under way cannot be decoded; the graph is of no use then.
        """
        return self._pipeline.share_outputs()[0]

    def release(self) -> None:
        """Give the images of the last ``take`` back."""
        self._pipeline.release_outputs()


def find_faulty(jpegs: Sequence[np.ndarray], image_size: tuple[int, int]) -> tuple[int, str] | None:
    """Return (place, what is wrong) of the first picture that is no image of the given size.

    Decodes one by one, so it is slow and for batches that failed.
    """
    graph = DecodeGraph(1, "cpu", 1, 1, None)
    for i, jpeg in enumerate(jpegs):
        try:
            graph.feed([jpeg], np.zeros(1))
            height, width = np.array(graph.take().at(0)).shape[1:]
        except RuntimeError:
            return i, "cannot be decoded"
        graph.release()
        if (height, width) != tuple(image_size):
            return i, f"is {height}x{width} pixels, not {image_size[0]}x{image_size[1]}"
    return None


@pipeline_def
def _window_graph(rec: str, idx: str, shard_id: int, num_shards: int, window: int) -> Any:
    jpeg, _ = fn.readers.mxnet(
        path=[rec],
        index_path=[idx],
        name="reader",
        shard_id=shard_id,
        num_shards=num_shards,
        random_shuffle=window > 1,
        initial_fill=window,
        tensor_init_bytes=JPEG_BYTES_HINT,
    )
    return jpeg, fn.get_property(jpeg, key="source_info")


class WindowReader:
    """Sequential scan of one shard with a shuffle buffer, ``fn.readers.mxnet``.

    The mixing is that of a window: a set sorted by person comes out nearly sorted by person.
    """

    def __init__(
        self,
        rec: Path,
        idx: Path,
        batch_size: int,
        shard_id: int,
        num_shards: int,
        window: int,
        seed: int,
    ):
        self._pipeline: Pipeline = _window_graph(
            str(rec),
            str(idx),
            shard_id,
            num_shards,
            window,
            batch_size=batch_size,
            num_threads=1,
            device_id=None,
            seed=seed,
        )
        self._pipeline.build()

    def read(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the JPEG bytes of the next batch and their offsets in the .rec, int64 (B,)."""
        jpeg, source = self._pipeline.run()
        # The reader names a sample "<path> at index <offset>".
        offsets = [
            int(re.search(rb"(\d+)$", np.array(source.at(i)).tobytes())[1])  # type: ignore[index]
            for i in range(len(source))
        ]
        return [np.array(jpeg.at(i)) for i in range(len(jpeg))], np.array(offsets, dtype=np.int64)

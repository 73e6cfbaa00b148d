# SPDX-License-Identifier: Apache-2.0
"""Pictures of a record set by row, decoded on the CPU straight from the mapped files.

The compiled decoder (``ops.jpeg_decoder``) takes what face sets are made of; whatever it leaves,
DALI decodes.  Both give the same pixels.  What is cut off in front of its end-of-image marker it
refuses, which DALI does not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from ops.feed import LoaderKernels
from ops.jpeg_decoder import CUT_OFF, Decoding
from pipeline.decode.dali import MEAN, STD, DecodeGraph, find_faulty
from pipeline.decode.to_mxnet import lend
from pipeline.records.open import RecordError, RecordSet
from pipeline.records.reader import CUT_OFF_IMAGE, Memory, RecordReader
from pipeline.sampling.augmentation import NO_AUGMENTATION


class Started(NamedTuple):
    """Pictures that are being decoded."""

    rows: np.ndarray
    decoding: Decoding | None
    pixels: np.ndarray
    """(B, H, W, 3) uint8; empty where planes are made."""
    planes: mx.nd.NDArray | None = None
    address: int = 0
    """Of the planes."""
    mirror: np.ndarray | None = None


class PictureDecoder:
    """Decodes rows of a record set.

    Parameters
    ----------
    records, reader
        The set and what reads it.
    most
        Pictures that are asked for at once.
    threads
        Decoder threads.
    feed
        The compiled functions; None leaves all to DALI.
    """

    def __init__(
        self,
        records: RecordSet,
        reader: RecordReader,
        most: int,
        threads: int,
        feed: LoaderKernels | None,
    ):
        self._records, self._reader = records, reader
        self._most, self._threads, self._feed = most, threads, feed
        self._decoder = None if feed is None else feed.decoder(threads)
        self._graph: DecodeGraph | None = None
        self._memory = Memory(1)

    def start_pixels(self, rows: np.ndarray, out: np.ndarray) -> Started:
        """Have the pictures of rows decoded to ``out``, uint8 (B, H, W, 3), contiguous."""
        decoding = None
        if self._decoder is not None:
            found = self._reader.find(rows)
            decoding = self._decoder.to_pixels(*found, self._records.image_size, out, self._reader)
        return Started(rows, decoding, out)

    def start_planes(self, rows: np.ndarray, mirror: np.ndarray, ctx: mx.Context) -> Started:
        """Have the pictures of rows decoded to a new float32 NDArray (B, 3, H, W), normalised.

        With the compiled functions only.

        Parameters
        ----------
        mirror
            bool (B,).
        ctx
            A device of the type "cpu".
        """
        assert self._decoder is not None and self._feed is not None
        planes, address = lend(self._feed, (len(rows), 3, *self._records.image_size), ctx)
        found, size = self._reader.find(rows), self._records.image_size
        decoding = self._decoder.to_planes(
            *(*found, size, mirror, MEAN, STD, address, self._reader, planes)
        )
        return Started(rows, decoding, np.empty(0, np.uint8), planes, address, mirror)

    def pixels(self, started: Started) -> np.ndarray:
        """Wait for pictures; return their pixels.

        Raises
        ------
        RecordError
            If one cannot be decoded or has another size.
        """
        left = self._left(started)
        if len(left):
            started.pixels[left] = self._by_dali(started.rows[left])
        self._reader.check_files()  # or zeros would be kept by a cache
        return started.pixels

    def planes(self, started: Started) -> mx.nd.NDArray:
        """Wait for pictures; return the array that was promised.

        Raises
        ------
        RecordError
            If one cannot be decoded or has another size.
        """
        left = self._left(started)
        if len(left):
            self._finish(started, left)
        return started.planes

    def close(self) -> None:
        """End the threads."""
        if self._decoder is not None:
            self._decoder.close()

    def _left(self, started: Started) -> np.ndarray:
        """Wait for pictures; return the places of those that are DALI's."""
        if self._decoder is None or started.decoding is None:
            return np.arange(len(started.rows))
        left = self._decoder.wait(started.decoding)
        if len(left):
            cut_off = left[started.decoding.left[left] == CUT_OFF]
            if len(cut_off):
                raise self._reader.unusable(int(started.rows[cut_off[0]]), CUT_OFF_IMAGE)
        return left

    def _finish(self, started: Started, left: np.ndarray) -> None:
        """Fill the places of planes whose pictures DALI decodes."""
        assert self._feed is not None and started.mirror is not None
        pixels = self._by_dali(started.rows[left])
        size = self._records.image_size
        picture = 3 * size[0] * size[1] * np.dtype(np.float32).itemsize
        run_ends = np.flatnonzero(np.diff(left, append=-1) != 1) + 1
        for begin, end in zip([0, *run_ends[:-1]], run_ends, strict=True):
            place = int(left[begin])
            self._feed.normalise(
                pixels.ctypes.data,
                np.arange(begin, end),
                started.mirror[place : place + end - begin],
                *(size, MEAN, STD, started.address + place * picture, self._threads),
            )

    def _by_dali(self, rows: np.ndarray) -> np.ndarray:
        """Return the pixels of rows, uint8 (n, H, W, 3)."""
        if self._graph is None:
            self._graph = DecodeGraph(
                *(self._most, "cpu", self._threads, 1, None, NO_AUGMENTATION), finish="bytes"
            )
        self._graph.feed(self._reader.gather(rows, self._memory), None)
        tensor = take_dense(self._records, self._reader, self._graph, [rows])
        pixels = np.array(tensor)
        self._graph.release()
        return pixels


def take_dense(
    records: RecordSet,
    reader: RecordReader,
    graph: DecodeGraph,
    under_way: Sequence[np.ndarray],
    *,
    gpu: int | None = None,
    decodes_on_gpu: bool = False,
) -> Any:
    """Return the oldest batch of a graph as a dense tensor; name the damaged image if it fails.

    Parameters
    ----------
    under_way
        Rows of each batch in the graph.
    gpu
        Number of the GPU on which the graph ends; None without one.
    decodes_on_gpu
        Whether it decodes there too.

    Raises
    ------
    RecordError
        If an image cannot be decoded or has another size, or the graph fails on images that the
        CPU decodes.
    """
    fault, images = None, None
    try:
        images = graph.take()
    except RuntimeError as error:
        fault = error
    if images is not None and images.is_dense_tensor():
        tensor = images.as_tensor()
        shape = tuple(tensor.shape())
        if (shape[1:3] if shape[-1] == 3 else shape[2:]) == tuple(records.image_size):
            return tensor
    rows = np.concatenate(under_way)
    found = find_faulty(reader.gather(rows), records.image_size)
    reader.check_files()  # or it would be said of a picture
    if found is not None:
        place, what = found
        raise RecordError(
            f"{records.picture(rows[place])} {what}; mend the record or leave its key out of the "
            ".idx"
        ) from None
    if fault is not None:
        raise RecordError(_not_the_images(records, rows, fault, gpu, decodes_on_gpu)) from None
    raise RecordError(
        f"{records.name}: holds pictures of several sizes, got a batch that is not all "
        f"{records.image_size}"
    )


def _not_the_images(
    records: RecordSet, rows: np.ndarray, fault: RuntimeError, gpu: int | None, decodes_on_gpu: bool
) -> str:
    """Return the sentence for a graph that fails on images which the CPU decodes one by one."""
    which = []
    for place in np.unique(records.file[rows]):
        keys = records.keys[rows[records.file[rows] == place]]
        which.append(f"{records.files[place]} between keys {keys.min()} and {keys.max()}")
    who, what = ("DALI" if gpu is None else f"GPU {gpu}"), "decode"
    cure = "use data.decode=native, or a smaller data.batch_size if memory is full"
    if decodes_on_gpu:
        cure = "the CPU can: data.decode=native"
    elif gpu is not None:
        what = "finish"
        cure = "use a smaller data.batch_size if its memory is full, else run.device=cpu"
    return (
        f"{who} could not {what} images of {' and '.join(which)}, DALI says: "
        f"{reason_of(fault)}; {cure}"
    )


def reason_of(fault: RuntimeError) -> str:
    """Return what DALI says in an error as one line, without the stack around it."""
    lines = [line.strip() for line in str(fault).splitlines()]
    begin = max((i + 1 for i, line in enumerate(lines) if line.endswith("encountered:")), default=0)
    said = []
    for line in lines[begin:]:
        if line.startswith(("Stacktrace", "Current pipeline object")):
            break
        said.append(line)
    return " ".join(filter(None, said)).removeprefix("Critical error in pipeline: ") or "nothing"

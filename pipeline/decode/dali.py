# SPDX-License-Identifier: Apache-2.0
"""The DALI graphs: the only importer of nvidia.dali; knows no mxnet.

``DecodeGraph`` turns JPEG bytes and the choices of augmentation into images, on the CPU or the GPU
with the same code.  ``WindowReader`` runs ``fn.readers.mxnet`` and gives bytes with their
place in the .rec, so that both ways to read share one choice.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Horovod loads itself, and with it libmxnet, for the whole process to see.  DALI's libraries would
# then find MXNet's JPEG decoder in the place of their own and corrupt the heap.  Loaded first,
# they are bound to their own.
if "nvidia.dali" not in sys.modules and "horovod.mxnet" in sys.modules:
    raise ImportError(
        "pipeline.decode.dali: import it before launch.ranks.comm.connect() loads Horovod"
    )

# It calls Python 3.12 experimental, past every filter, on the standard error of every rank; the
# tests pass on it.
with warnings.catch_warnings(record=True) as _caught:
    import nvidia.dali.fn as fn
    from nvidia.dali import Pipeline, backend, pipeline_def, types
for _warning in _caught:
    if not str(_warning.message).startswith("DALI support for Python"):
        warnings.showwarning(
            _warning.message, _warning.category, _warning.filename, _warning.lineno
        )

from normalization import MEAN, STD
from pipeline.decode.decode_paths import PATHS
from pipeline.sampling.augmentation import (
    CUT_OUT_VALUE,
    NO_AUGMENTATION,
    Augmentation,
    Choices,
    color_matrices,
)

READ_DEPTH = 2  # batches that the window reader has under way, beside those that are held


@pipeline_def(enable_conditionals=True)
def _decode_graph(
    source: str, decode: str, finish: str, augmentation: Augmentation, to_gpu: bool
) -> Any:
    """JPEG bytes or pixels, and what is done to each image -> RGB.

    float32 (3, H, W), normalised, where ``finish`` is "float"; uint8 (H, W, 3), neither mirrored
    nor normalised, where it is "bytes".  ``to_gpu`` brings what the CPU has decoded to the GPU.
    """

    def given(name: str, dtype: Any, ndim: int, **options: Any) -> Any:
        return fn.external_source(name=name, dtype=dtype, ndim=ndim, **options)

    if source == "pixels":
        image = given("image", types.UINT8, 3, layout="HWC", no_copy=True)
    else:
        path, options = PATHS[decode], {}
        if path.device == "mixed":
            options["hw_decoder_load"] = path.hw_decoder_load
            options["hybrid_huffman_threshold"] = path.hybrid_huffman_threshold
        image = fn.decoders.image(
            given("image", types.UINT8, 1, no_copy=True),
            device=path.device,
            output_type=types.RGB,
            **options,
        )
    if to_gpu and image.device == "cpu":
        # Before anything is done to it: a change of colours, like the normalisation, makes float32
        # of it, four times the bytes.  The GPU has all operators that follow, a second compression
        # too, and the cores are free to decode.
        image = image.gpu()
    if augmentation.jpeg_quality:
        quality = given("quality", types.INT32, 0)
        if quality > 0:  # for each image: DALI compiles this to a split and a merge of the batch
            image = fn.jpeg_compression_distortion(image, quality=quality)
    if augmentation.colors:
        mean = fn.reductions.mean(image, axes=[0, 1], keep_dims=True)  # (1, 1, 3)
        image = fn.coord_transform(image, M=given("color", types.FLOAT, 2)) + fn.coord_transform(
            mean, M=given("color_mean", types.FLOAT, 2)
        )
    if augmentation.shift:
        image = fn.slice(
            image,
            start=given("shift_start", types.INT32, 1),
            rel_shape=[1.0, 1.0],
            axes=[0, 1],
            out_of_bounds_policy="pad",
            fill_values=CUT_OUT_VALUE,
        )
    if augmentation.cut_out:
        image = fn.erase(
            image,
            anchor=given("cut_out_anchor", types.FLOAT, 1),
            shape=given("cut_out_shape", types.FLOAT, 1),
            axes=[0, 1],
            fill_value=CUT_OUT_VALUE,
        )
    if finish == "bytes":
        return image
    return fn.crop_mirror_normalize(
        image,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[MEAN] * 3,
        std=[STD] * 3,
        mirror=given("mirror", types.INT32, 0),
    )


class DecodeGraph:
    """A queue of batches on their way from JPEG bytes to images.

    Parameters
    ----------
    batch_size
        Most images per batch.
    decode
        Name in PATHS; only those that need a GPU differ.
    threads
        Worker threads.
    depth
        Batches in the queue.
    device_id
        GPU of this rank, where planes end in any case; None without one.
    augmentation
        What the choices fed with the batches will be of.
    source
        "jpeg": batches of JPEG bytes; "pixels": of decoded images.
    finish
        "float": normalised planes; "bytes": pixels, for whoever mirrors and normalises them.
    """

    def __init__(
        self,
        batch_size: int,
        decode: str,
        threads: int,
        depth: int,
        device_id: int | None,
        augmentation: Augmentation,
        source: str = "jpeg",
        finish: str = "float",
    ):
        self.device_id = device_id
        self.decodes_on_gpu = source == "jpeg" and PATHS[decode].device == "mixed"
        self._fed, self._depth, self._finish = 0, depth, finish
        self._augmentation = augmentation
        self._held: deque[Any] = deque()  # images that DALI may still read where they lie
        self._pipeline: Pipeline = _decode_graph(
            source,
            decode,
            finish,
            augmentation,
            to_gpu=device_id is not None and finish == "float",
            batch_size=batch_size,
            num_threads=threads,
            device_id=device_id,
            prefetch_queue_depth=depth,
        )
        self._pipeline.build()

    def __del__(self) -> None:
        # Its threads first: they read what is held until they have ended.
        self.__dict__.pop("_pipeline", None)

    def feed(self, images: Any, choices: Choices | None) -> None:
        """Put a batch in; at most ``depth`` may be under way, and as many before the first take.

        Parameters
        ----------
        images
            JPEG bytes: a list of uint8 (n,), an array (B, S) with something behind the end of
            each, or a DALI tensor list.  Or pixels, (B, H, W, 3).  They may not change before the
            batch is released.
        choices
            What is done to each; None where nothing is.
        """
        inputs: dict[str, Any] = {"image": images}
        if choices is not None:
            inputs |= self._inputs(choices)
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        self._held.append(inputs["image"])
        self._fed += 1
        if self._fed >= self._depth:  # the first call of schedule_run starts the whole queue
            self._pipeline.schedule_run()

    def _inputs(self, choices: Choices) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        if self._finish == "float":
            inputs["mirror"] = choices.mirror.astype(np.int32)
        if self._augmentation.jpeg_quality:
            inputs["quality"] = choices.quality
        if self._augmentation.colors:
            inputs["color"], inputs["color_mean"] = color_matrices(choices.color)
        if self._augmentation.shift:
            inputs["shift_start"] = -choices.shift
        if self._augmentation.cut_out:
            anchor, shape = np.split(choices.cut_out.astype(np.float32), 2, axis=1)
            inputs["cut_out_anchor"] = np.ascontiguousarray(anchor)  # DALI takes no strides
            inputs["cut_out_shape"] = np.ascontiguousarray(shape)
        return inputs

    def take(self) -> Any:
        """Wait for the oldest batch; return its images, a DALI tensor list.

        It stays valid until ``release``.  On a GPU it is finished: DALI waits for the event after
        the batch's last kernel.

        Raises
        ------
        RuntimeError
            If a picture of some batch under way cannot be decoded; the graph is of no use then.
        """
        return self._pipeline.share_outputs()[0]

    def release(self) -> None:
        """Give the images of the last ``take`` back."""
        self._pipeline.release_outputs()
        self._held.popleft()


def release_memory() -> None:
    """Give back to the GPU what DALI keeps of graphs that are gone."""
    backend.ReleaseUnusedMemory()


def find_faulty(jpegs: Sequence[np.ndarray], image_size: tuple[int, int]) -> tuple[int, str] | None:
    """Return (place, what is wrong) of the first picture that is no image of the given size.

    Decodes one by one, so it is slow and for batches that failed.
    """
    graph = DecodeGraph(1, "cpu", 1, 1, None, NO_AUGMENTATION, finish="bytes")
    for i, jpeg in enumerate(jpegs):
        try:
            graph.feed([jpeg], None)
            height, width = np.array(graph.take().at(0)).shape[:2]
        except RuntimeError:
            return i, "cannot be decoded"
        graph.release()
        if (height, width) != tuple(image_size):
            return i, f"is {height}x{width} pixels, not {image_size[0]}x{image_size[1]}"
    return None


@pipeline_def
def _window_graph(
    rec: str,
    idx: str,
    shard_id: int,
    num_shards: int,
    window: int,
    reader_seed: int,
    use_mmap: bool,
) -> Any:
    jpeg, _ = fn.readers.mxnet(
        path=[rec],
        index_path=[idx],
        name="reader",
        shard_id=shard_id,
        num_shards=num_shards,
        random_shuffle=window > 1,
        initial_fill=window,
        seed=reader_seed,  # not one that DALI draws from the graph's: ops.feed knows this one
        tensor_init_bytes=1,  # what it reads stays in the mapped file
        dont_use_mmap=not use_mmap,
    )
    return jpeg, fn.pad(fn.get_property(jpeg, key="source_info"), fill_value=0)


class WindowReader:
    """Sequential scan of one shard with a shuffle buffer, ``fn.readers.mxnet``.

    The mixing is that of a window: a set sorted by person comes out nearly sorted by person.

    Parameters
    ----------
    batches
        How often ``take`` will be called.
    depth
        Batches that may be held before one is released.
    use_mmap
        Whether it may map the .rec. Reading it copies each record.
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
        batches: int,
        depth: int,
        use_mmap: bool = True,
    ):
        depth += READ_DEPTH
        self._left = batches - depth
        self._pipeline: Pipeline = _window_graph(
            str(rec),
            str(idx),
            shard_id,
            num_shards,
            window,
            seed,
            use_mmap,
            batch_size=batch_size,
            num_threads=1,
            device_id=None,
            prefetch_queue_depth=depth,
        )
        self._pipeline.build()
        self._pipeline.schedule_run()

    def take(self) -> tuple[Any, np.ndarray]:
        """Return the JPEG bytes of the next batch, a DALI tensor list, and their offsets, (B,).

        The bytes stay valid until they are released; the offsets are int64, those in the .rec.
        """
        jpegs, source = self._pipeline.share_outputs()
        # The reader names a sample "<path> at index <offset>"; zeros follow.
        return jpegs, _last_numbers(np.array(source.as_tensor()))

    def release(self) -> None:
        """Give the oldest bytes back; have one more batch read if any is left."""
        self._pipeline.release_outputs()
        if self._left > 0:
            self._pipeline.schedule_run()
        self._left -= 1


@pipeline_def
def _ceiling_graph(rec: str, idx: str) -> Any:
    jpeg, _ = fn.readers.mxnet(
        path=[rec], index_path=[idx], random_shuffle=True, tensor_init_bytes=16384
    )
    return fn.decoders.image(jpeg, output_type=types.RGB)


def decoded_alone(rec: Path, idx: Path, batch_size: int, threads: int) -> Iterator[None]:
    """Read and decode batches and do nothing with them: what no loader on DALI can exceed."""
    pipe: Pipeline = _ceiling_graph(
        str(rec), str(idx), batch_size=batch_size, num_threads=threads, device_id=None
    )
    pipe.build()
    pipe.schedule_run()
    while True:
        pipe.share_outputs()
        yield
        pipe.release_outputs()
        pipe.schedule_run()


def _last_numbers(text: np.ndarray) -> np.ndarray:
    """Return the numbers that lines (B, n) of characters end in, int64 (B,); zeros may follow."""
    size = (text != 0).sum(axis=1)
    number, scale = np.zeros(len(text), dtype=np.int64), 1
    rows, more = np.arange(len(text)), np.ones(len(text), dtype=bool)
    for back in range(1, int(size.max()) + 1):
        digit = text[rows, np.maximum(size - back, 0)].astype(np.int64) - ord("0")
        more &= (digit >= 0) & (digit <= 9)
        if not more.any():
            break
        number[more] += digit[more] * scale
        scale *= 10
    return number

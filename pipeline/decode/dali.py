# SPDX-License-Identifier: Apache-2.0
"""The DALI pipeline for images that are fed: JPEG bytes or pixels -> augmentation -> planes.

``DecodeGraph`` runs it, on the CPU or a GPU with the same code.  ``dali_reader`` has the pipeline
that reads records itself; both share ``decoder_options``, ``augment`` and ``PLANES``.  nvidia.dali
is imported in these two files alone; this one knows no mxnet.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
from pipeline.sampling.augmentation import (
    CUT_OUT_VALUE,
    NO_AUGMENTATION,
    Augmentation,
    AugmentParams,
    color_matrices,
)


class DecodePath(NamedTuple):
    """Arguments of ``fn.decoders.image``; the defaults are DALI's.

    "mixed" gives the share ``hw_decoder_load`` of each batch to the JPEG hardware that some GPUs
    have (A100, H100).  Of the other images the CPU decodes the Huffman codes and the GPU the rest;
    with more pixels than the threshold the GPU takes part in the Huffman decoding.
    """

    device: str
    hw_decoder_load: float = 0.65
    hybrid_huffman_threshold: int = 1_000_000


PATHS = {
    "cpu": DecodePath("cpu"),
    # The compiled decoder, on the CPU; DALI takes its pixels, and the images that it leaves.
    "native": DecodePath("cpu"),
    "mixed": DecodePath("mixed"),
    "mixed_cuda": DecodePath("mixed", hw_decoder_load=0.0),
    "mixed_hardware": DecodePath("mixed", hw_decoder_load=1.0),
    # An image of 112x112 has 12,544 pixels.
    "mixed_gpu_huffman": DecodePath("mixed", 0.0, hybrid_huffman_threshold=1000),
}
"""By name, as ``data.decode`` has it; launch/config/sections.py lists the same names.  All but
"cpu" and "native" need a GPU."""

PLANES = {"dtype": types.FLOAT, "output_layout": "CHW", "mean": [MEAN] * 3, "std": [STD] * 3}
"""What ``fn.crop_mirror_normalize`` makes of an image: float32 (3, H, W), normalised."""


def decoder_options(decode: str) -> dict[str, Any]:
    """Return the arguments of ``fn.decoders.image`` for a name in PATHS."""
    path = PATHS[decode]
    options: dict[str, Any] = {"device": path.device, "output_type": types.RGB}
    if path.device == "mixed":
        options["hw_decoder_load"] = path.hw_decoder_load
        options["hybrid_huffman_threshold"] = path.hybrid_huffman_threshold
    return options


def external_input(name: str, dtype: Any, ndim: int, **options: Any) -> Any:
    """Return what is fed under a name, one array for each image of the batch."""
    return fn.external_source(name=name, dtype=dtype, ndim=ndim, **options)


def augment(image: Any, augmentation: Augmentation) -> Any:
    """Apply all of an augmentation but mirroring to RGB images (H, W, 3), uint8.

    ``augment_inputs`` gives what is to be fed.  The images stay uint8, unless colours are changed.
    """
    if augmentation.jpeg_quality:
        quality = external_input("quality", types.INT32, 0)
        if quality > 0:  # for each image: DALI compiles this to a split and a merge of the batch
            image = fn.jpeg_compression_distortion(image, quality=quality)
    if augmentation.colors:
        mean = fn.reductions.mean(image, axes=[0, 1], keep_dims=True)  # (1, 1, 3)
        image = fn.coord_transform(
            image, M=external_input("color", types.FLOAT, 2)
        ) + fn.coord_transform(mean, M=external_input("color_mean", types.FLOAT, 2))
    if augmentation.shift:
        image = fn.slice(
            image,
            start=external_input("shift_start", types.INT32, 1),
            rel_shape=[1.0, 1.0],
            axes=[0, 1],
            out_of_bounds_policy="pad",
            fill_values=CUT_OUT_VALUE,
        )
    if augmentation.cut_out:
        image = fn.erase(
            image,
            anchor=external_input("cut_out_anchor", types.FLOAT, 1),
            shape=external_input("cut_out_shape", types.FLOAT, 1),
            axes=[0, 1],
            fill_value=CUT_OUT_VALUE,
        )
    return image


def augment_inputs(params: AugmentParams, augmentation: Augmentation) -> dict[str, np.ndarray]:
    """Return what ``augment`` and mirroring need for a batch, by name of the external source."""
    inputs = {"mirror": params.mirror.astype(np.int32)}
    if augmentation.jpeg_quality:
        inputs["quality"] = params.quality
    if augmentation.colors:
        inputs["color"], inputs["color_mean"] = color_matrices(params.color)
    if augmentation.shift:
        inputs["shift_start"] = -params.shift
    if augmentation.cut_out:
        anchor, shape = np.split(params.cut_out.astype(np.float32), 2, axis=1)
        inputs["cut_out_anchor"] = np.ascontiguousarray(anchor)  # DALI takes no strides
        inputs["cut_out_shape"] = np.ascontiguousarray(shape)
    return inputs


@pipeline_def(enable_conditionals=True)
def _decode_graph(
    source: str, decode: str, finish: str, augmentation: Augmentation, to_gpu: bool
) -> Any:
    """JPEG bytes or pixels, and what is done to each image -> RGB.

    float32 (3, H, W), normalised, where ``finish`` is "float"; uint8 (H, W, 3), neither mirrored
    nor normalised, where it is "bytes".  ``to_gpu`` brings what the CPU has decoded to the GPU.
    """
    if source == "pixels":
        image = external_input("image", types.UINT8, 3, layout="HWC", no_copy=True)
    else:
        jpeg = external_input("image", types.UINT8, 1, no_copy=True)
        image = fn.decoders.image(jpeg, **decoder_options(decode))
    if to_gpu and image.device == "cpu":
        # Before anything is done to it: a change of colours, like the normalisation, makes float32
        # of it, four times the bytes.  The GPU has all operators that follow, a second compression
        # too, and the cores are free to decode.
        image = image.gpu()
    image = augment(image, augmentation)
    if finish == "bytes":
        return image
    return fn.crop_mirror_normalize(
        image, mirror=external_input("mirror", types.INT32, 0), **PLANES
    )


class PipelineQueue:
    """Batches in flight in a DALI pipeline with external sources, at most ``depth``.

    ``depth`` is that of the pipeline's prefetch queue.  The first batches start when so many are
    fed.
    """

    def __init__(self, pipeline: Pipeline, depth: int):
        self._pipeline, self._depth = pipeline, depth
        self._fed = self._scheduled = self._released = 0
        self._inputs: deque[Any] = deque()  # images that DALI may still read where they lie
        pipeline.build()

    def __del__(self) -> None:
        # Its threads first: they read the inputs until they have ended.
        self.__dict__.pop("_pipeline", None)

    def feed_inputs(self, inputs: dict[str, Any]) -> None:
        """Put a batch in: what each external source gets.  Beyond ``depth`` it waits."""
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        self._inputs.append(inputs)
        self._fed += 1
        self._schedule()

    def take(self) -> Any:
        """Wait for the oldest batch; return its images, a DALI tensor list.

        It stays valid until ``release``.  On a GPU it is finished: DALI waits for the event after
        the batch's last kernel.

        Raises
        ------
        RuntimeError
            If an image of some batch in flight cannot be decoded; the pipeline is of no use then.
        """
        return self._pipeline.share_outputs()[0]

    def release(self) -> None:
        """Release the images of the last ``take``."""
        self._pipeline.release_outputs()
        self._inputs.popleft()
        self._released += 1
        self._schedule()

    def _schedule(self) -> None:
        while self._scheduled < min(self._fed, self._released + self._depth):
            if self._fed < self._depth:
                return
            self._pipeline.schedule_run()
            # The first call starts the whole queue.
            self._scheduled += 1 if self._scheduled else self._depth


class DecodeGraph(PipelineQueue):
    """A queue of batches on their way from JPEG bytes to images.

    Parameters
    ----------
    batch_size, threads, depth
        Largest batch, worker threads, batches in flight.
    decode
        Name in PATHS; only those that need a GPU differ.
    device_id
        GPU of this rank, where planes end in any case; None without one.
    augmentation
        What the params fed with the batches will be of.
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
        self._finish, self._augmentation = finish, augmentation
        pipeline: Pipeline = _decode_graph(
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
        super().__init__(pipeline, depth)

    def feed(self, images: Any, params: AugmentParams | None) -> None:
        """Put a batch in; ``depth`` of them before the first ``take``.

        Parameters
        ----------
        images
            JPEG bytes: a list of uint8 (n,), or an array (B, S) with something behind the end of
            each.  Or pixels, (B, H, W, 3).  They may not change before the batch is released.
        params
            What is done to each; None where nothing is.
        """
        inputs: dict[str, Any] = {"image": images}
        if params is not None:
            inputs |= augment_inputs(params, self._augmentation)
        if self._finish == "bytes":
            inputs.pop("mirror", None)
        self.feed_inputs(inputs)


def release_memory() -> None:
    """Release the GPU memory that DALI keeps of pipelines that are gone."""
    backend.ReleaseUnusedMemory()


def find_faulty(jpegs: Sequence[np.ndarray], image_size: tuple[int, int]) -> tuple[int, str] | None:
    """Return (place, what is wrong) of the first that is no image of the given size.

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


def jpeg_hardware_notice(load: Callable[[str], object] = ctypes.CDLL) -> str:
    """Return a sentence for the log: whether nvJPEG can use JPEG hardware, of GPUs that have some.

    It needs libnvcuvid.so.1 of the driver and decodes without the hardware, silently, where that
    is missing: in containers that ask for no capability "video".  Source: NVIDIA's answers in
    CUDALibrarySamples, issue 132, and nvImageCodec, issue 26.
    """
    try:
        load("libnvcuvid.so.1")
    except OSError as error:
        return (
            "decode: no JPEG hardware, so that mixed, mixed_cuda and mixed_hardware are the same: "
            f"libnvcuvid.so.1 cannot be loaded, got {error}; in a container set "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    return "decode: libnvcuvid.so.1 is there, so JPEG hardware is used where the GPU has it"

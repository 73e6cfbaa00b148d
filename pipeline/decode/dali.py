# SPDX-License-Identifier: Apache-2.0
"""DALI pipeline for images that are fed: JPEG bytes or pixels -> augmentation -> planes.

``dali_reader`` has the pipeline that reads records itself.  Only these two files import
nvidia.dali; this one does not import mxnet.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Horovod loads libmxnet with global symbols.  If DALI's libraries are loaded after it, they bind to
# MXNet's JPEG decoder instead of their own and corrupt the heap.
if "nvidia.dali" not in sys.modules and "horovod.mxnet" in sys.modules:
    raise ImportError(
        "pipeline.decode.dali: import it before launch.ranks.comm.connect() loads Horovod"
    )

# DALI warns on every rank that Python 3.12 is experimental, and it ignores warning filters.  The
# tests pass on Python 3.12, so drop this warning and show all others.
with warnings.catch_warnings(record=True) as _caught:
    import nvidia.dali.fn as fn
    from nvidia.dali import Pipeline, backend, pipeline_def
    from nvidia.dali.types import DALIDataType, DALIImageType
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
    """Arguments of ``fn.decoders.image``, with DALI's defaults.

    With the device "mixed", the hardware JPEG decoder of some GPUs (A100, H100) decodes the
    fraction ``hw_decoder_load`` of each batch.  For the other images the CPU does the Huffman
    decoding and the GPU the rest.  The GPU helps with the Huffman decoding of images that have more
    pixels than ``hybrid_huffman_threshold``.
    """

    device: str
    hw_decoder_load: float = 0.65
    hybrid_huffman_threshold: int = 1_000_000


PATHS = {
    "cpu": DecodePath("cpu"),
    # The compiled decoder, on the CPU.  DALI decodes the formats that it does not support.
    "native": DecodePath("cpu"),
    "mixed": DecodePath("mixed"),
    "mixed_cuda": DecodePath("mixed", hw_decoder_load=0.0),
    "mixed_hardware": DecodePath("mixed", hw_decoder_load=1.0),
    # An image of 112x112 has 12,544 pixels.
    "mixed_gpu_huffman": DecodePath("mixed", 0.0, hybrid_huffman_threshold=1000),
}
"""Decode modes by name, the values of ``data.decode``; keep launch/config/sections.py in step.  The
"mixed" modes need a GPU."""


def decoder_options(decode: str) -> dict[str, Any]:
    """Return the arguments of ``fn.decoders.image`` for a decode mode."""
    path = PATHS[decode]
    options: dict[str, Any] = {"device": path.device, "output_type": DALIImageType.RGB}
    if path.device == "mixed":
        options["hw_decoder_load"] = path.hw_decoder_load
        options["hybrid_huffman_threshold"] = path.hybrid_huffman_threshold
    return options


def external_input(name: str, dtype: Any, ndim: int, **options: Any) -> Any:
    """Return an external source that receives one array per image."""
    return fn.external_source(name=name, dtype=dtype, ndim=ndim, **options)


def augment(image: Any, augmentation: Augmentation) -> Any:
    """Apply an augmentation, except mirroring, to RGB images (H, W, 3), uint8.

    ``augment_inputs`` returns the values for the external sources.  The images stay uint8 unless
    the augmentation changes colours; then they become float32.
    """
    if augmentation.jpeg_quality:
        quality = external_input("quality", DALIDataType.INT32, 0)
        if quality > 0:  # per image: DALI compiles this to a split and a merge of the batch
            image = fn.jpeg_compression_distortion(image, quality=quality)
    if augmentation.colors:
        mean = fn.reductions.mean(image, axes=[0, 1], keep_dims=True)  # (1, 1, 3)
        image = fn.coord_transform(
            image, M=external_input("color", DALIDataType.FLOAT, 2)
        ) + fn.coord_transform(mean, M=external_input("color_mean", DALIDataType.FLOAT, 2))
    if augmentation.shift:
        image = fn.slice(
            image,
            start=external_input("shift_start", DALIDataType.INT32, 1),
            rel_shape=[1.0, 1.0],
            axes=[0, 1],
            out_of_bounds_policy="pad",
            fill_values=CUT_OUT_VALUE,
        )
    if augmentation.cut_out:
        image = fn.erase(
            image,
            anchor=external_input("cut_out_anchor", DALIDataType.FLOAT, 1),
            shape=external_input("cut_out_shape", DALIDataType.FLOAT, 1),
            axes=[0, 1],
            fill_value=CUT_OUT_VALUE,
        )
    return image


def augment_inputs(params: AugmentParams, augmentation: Augmentation) -> dict[str, np.ndarray]:
    """Return the inputs of ``augment`` and of mirroring, by name of the external source."""
    inputs = {"mirror": params.mirror.astype(np.int32)}
    if augmentation.jpeg_quality:
        inputs["quality"] = params.quality
    if augmentation.colors:
        inputs["color"], inputs["color_mean"] = color_matrices(params.color)
    if augmentation.shift:
        inputs["shift_start"] = -params.shift
    if augmentation.cut_out:
        anchor, shape = np.split(params.cut_out.astype(np.float32), 2, axis=1)
        inputs["cut_out_anchor"] = np.ascontiguousarray(anchor)  # DALI does not support strides
        inputs["cut_out_shape"] = np.ascontiguousarray(shape)
    return inputs


def to_planes(image: Any, augmentation: Augmentation) -> Any:
    """Augment, mirror and normalise RGB images: uint8 (H, W, 3) -> float32 (3, H, W).

    If the pipeline has a GPU, all of this runs there, also if the CPU decoded the images.
    """
    if Pipeline.current().device_id is not None and image.device == "cpu":
        # Copy first: later the images may be float32, which is four times the bytes.  And the GPU
        # can do all that follows, which frees the CPU cores for decoding.
        image = image.gpu()
    image = augment(image, augmentation)
    return fn.crop_mirror_normalize(
        image,
        mirror=external_input("mirror", DALIDataType.INT32, 0),
        dtype=DALIDataType.FLOAT,
        output_layout="CHW",
        mean=[MEAN] * 3,
        std=[STD] * 3,
    )


@pipeline_def(enable_conditionals=True)
def _decode_graph(source: str, decode: str, finish: str, augmentation: Augmentation) -> Any:
    """Convert JPEG bytes or pixels to RGB images; ``DecodeGraph`` documents the parameters."""
    if source == "pixels":
        image = external_input("image", DALIDataType.UINT8, 3, layout="HWC", no_copy=True)
    else:
        jpeg = external_input("image", DALIDataType.UINT8, 1, no_copy=True)
        image = fn.decoders.image(jpeg, **decoder_options(decode))
    return augment(image, augmentation) if finish == "bytes" else to_planes(image, augmentation)


class PipelineQueue:
    """Queue of at most ``depth`` batches in flight in a DALI pipeline with external sources.

    ``depth`` is the pipeline's ``prefetch_queue_depth``.  The pipeline starts when ``depth``
    batches are fed.  ``decodes_on_gpu`` tells error messages where it decodes JPEGs.
    """

    def __init__(self, pipeline: Pipeline, depth: int, decodes_on_gpu: bool = False):
        self._pipeline, self._depth = pipeline, depth
        self.device_id, self.decodes_on_gpu = pipeline.device_id, decodes_on_gpu
        self._fed = self._scheduled = self._released = 0
        self._inputs: deque[Any] = deque()  # keeps alive what DALI reads without a copy
        pipeline.build()

    def __del__(self) -> None:
        # Delete the pipeline before the inputs: its threads read them until they stop.
        self.__dict__.pop("_pipeline", None)

    def feed_inputs(self, inputs: dict[str, Any]) -> None:
        """Add a batch: values by name of the external source.  It starts when a slot is free."""
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        self._inputs.append(inputs)
        self._fed += 1
        self._schedule()

    def take(self) -> Any:
        """Wait for the oldest batch; return its images, a DALI tensor list.

        The images stay valid until ``release``.  On a GPU they are complete: DALI waits for the
        CUDA event after the batch's last kernel.

        Raises
        ------
        RuntimeError
            If an image of any batch in flight cannot be decoded.  The pipeline is unusable then.
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
            # The first call starts ``depth`` batches.
            self._scheduled += 1 if self._scheduled else self._depth


class DecodeGraph(PipelineQueue):
    """Queue of batches that DALI converts from JPEG bytes or pixels to images.

    Parameters
    ----------
    batch_size, threads, depth
        Maximum number of images per batch, worker threads, and batches in flight.
    decode, device_id
        Name in PATHS; GPU that receives the planes, or None for the CPU.
    augmentation
        Augmentation that the params of ``feed`` belong to.
    source
        Input: "jpeg" (JPEG bytes) or "pixels".
    finish
        Output: "float", float32 (3, H, W), mirrored and normalised; or "bytes", uint8 (H, W, 3),
        neither mirrored nor normalised.
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
        self._finish, self._augmentation = finish, augmentation
        options = {"batch_size": batch_size, "num_threads": threads, "device_id": device_id}
        options["prefetch_queue_depth"] = depth
        pipeline: Pipeline = _decode_graph(source, decode, finish, augmentation, **options)
        decodes_on_gpu = source == "jpeg" and PATHS[decode].device == "mixed"
        super().__init__(pipeline, depth, decodes_on_gpu)

    def feed(self, images: Any, params: AugmentParams | None) -> None:
        """Add a batch.  Feed ``depth`` batches before the first ``take``.

        ``images`` are JPEG bytes, a list of uint8 (n,) or an array (B, S) with padding after each
        image, or pixels, uint8 (B, H, W, 3).  Do not change them before the batch is released.
        Without ``params`` the images are not augmented.
        """
        inputs: dict[str, Any] = {"image": images}
        if params is not None:
            inputs |= augment_inputs(params, self._augmentation)
        if self._finish == "bytes":
            inputs.pop("mirror", None)
        self.feed_inputs(inputs)


def release_memory() -> None:
    """Release the GPU memory that DALI still holds for deleted pipelines."""
    dali_backend: Any = backend  # DALI's type stubs lack the function
    dali_backend.ReleaseUnusedMemory()


def find_faulty_image(
    jpegs: Sequence[np.ndarray], image_size: tuple[int, int]
) -> tuple[int, str] | None:
    """Return (index, fault) of the first image that cannot be decoded or has another size.

    Returns None if there is no such image.  It decodes image by image on the CPU, which is slow, so
    call it only for a batch that failed.
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
    """Return a log line that says whether nvJPEG can use a hardware JPEG decoder.

    nvJPEG needs the driver's libnvcuvid.so.1 for that.  Without the library, as in containers that
    lack the driver capability "video", nvJPEG silently decodes without the hardware.  Source:
    NVIDIA's answers in CUDALibrarySamples, issue 132, and nvImageCodec, issue 26.
    """
    try:
        load("libnvcuvid.so.1")
    except OSError as error:
        return (
            "decode: no JPEG hardware, so mixed, mixed_cuda and mixed_hardware are the same: "
            f"libnvcuvid.so.1 cannot be loaded, got {error}; in a container set "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    return "decode: libnvcuvid.so.1 is loaded, so JPEG hardware is used where the GPU has it"

# SPDX-License-Identifier: Apache-2.0
"""DALI pipeline that converts fed JPEG bytes or pixels to augmented, normalised images.

Of this package, only this module imports nvidia.dali: ``dali_reader``, whose pipeline reads the
records, imports DALI's functions from here.  This module does not import mxnet.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Horovod loads libmxnet with global symbols.  If DALI's libraries are loaded after libmxnet, they
# bind to MXNet's JPEG decoder instead of their own and corrupt the heap.
if "nvidia.dali" not in sys.modules and "horovod.mxnet" in sys.modules:
    raise ImportError(
        "pipeline.decode.dali: must be imported before Horovod, got horovod.mxnet already loaded; "
        "import this module before the call of launch.ranks.comm.connect()"
    )

# DALI warns on every rank that its support for Python 3.12 is experimental, and DALI ignores
# warning filters.  The tests pass on Python 3.12, so drop this warning and show all other warnings.
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
    """Decode mode, as arguments of ``fn.decoders.image``; the default values are those of DALI.

    With the device "mixed", the hardware JPEG decoder of some GPUs (A100, H100) decodes the
    fraction ``hw_decoder_load`` of each batch.  For the remaining images the CPU does the Huffman
    decoding and the GPU all later steps.  The GPU helps with the Huffman decoding of images that
    have more pixels than ``hybrid_huffman_threshold``.
    """

    device: str
    hw_decoder_load: float = 0.65
    hybrid_huffman_threshold: int = 1_000_000


PATHS = {
    "cpu": DecodePath("cpu"),
    # The compiled decoder, on the CPU.  DALI decodes the formats that the compiled decoder does not
    # support.
    "native": DecodePath("cpu"),
    "mixed": DecodePath("mixed"),
    "mixed_cuda": DecodePath("mixed", hw_decoder_load=0.0),
    "mixed_hardware": DecodePath("mixed", hw_decoder_load=1.0),
    # A 112x112 image has 12,544 pixels, so with this threshold the GPU helps with every image.
    "mixed_gpu_huffman": DecodePath("mixed", 0.0, hybrid_huffman_threshold=1000),
}
"""Decode modes by name.  The names are the values of ``data.decode``: change them in
launch/config/sections.py too.  The modes whose name begins with "mixed" need a GPU."""


def decoder_options(decode: str) -> dict[str, Any]:
    """Return the arguments of ``fn.decoders.image`` for a decode mode."""
    path = PATHS[decode]
    options: dict[str, Any] = {"device": path.device, "output_type": DALIImageType.RGB}
    if path.device == "mixed":
        options["hw_decoder_load"] = path.hw_decoder_load
        options["hybrid_huffman_threshold"] = path.hybrid_huffman_threshold
    return options


def external_input(name: str, dtype: Any, ndim: int, **options: Any) -> Any:
    """Create a DALI external source, into which the caller feeds one array per image.

    ``ndim`` is the number of axes of each array, and ``options`` are further arguments for DALI.
    """
    return fn.external_source(name=name, dtype=dtype, ndim=ndim, **options)


def augment(image: Any, augmentation: Augmentation) -> Any:
    """Add all augmentation steps except mirroring to a DALI graph; return the augmented images.

    ``image`` stands for RGB images, uint8 (H, W, 3).  ``augment_inputs`` returns the values for the
    external sources that this function creates.  The images stay uint8 unless the augmentation
    changes colours, which makes them float32.
    """
    if augmentation.jpeg_quality:
        quality = external_input("quality", DALIDataType.INT32, 0)
        # DALI evaluates this condition for each image: it splits the batch and merges the parts.
        if quality > 0:
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
    """Return the values for the external sources of ``to_planes``: a dict from name to values."""
    inputs = {"mirror": params.mirror.astype(np.int32)}
    if augmentation.jpeg_quality:
        inputs["quality"] = params.quality
    if augmentation.colors:
        inputs["color"], inputs["color_mean"] = color_matrices(params.color)
    if augmentation.shift:
        inputs["shift_start"] = -params.shift
    if augmentation.cut_out:
        anchor, shape = np.split(params.cut_out.astype(np.float32), 2, axis=1)
        inputs["cut_out_anchor"] = np.ascontiguousarray(anchor)  # DALI needs contiguous arrays
        inputs["cut_out_shape"] = np.ascontiguousarray(shape)
    return inputs


def to_planes(image: Any, augmentation: Augmentation) -> Any:
    """Add augmentation, mirroring and normalisation to a DALI graph; return normalised planes.

    ``image`` stands for RGB pixels, uint8 (H, W, 3), and the planes are float32 (3, H, W).  If the
    pipeline has a GPU, all these steps run on the GPU, even if the CPU decoded the images.
    """
    if Pipeline.current().device_id is not None and image.device == "cpu":
        # Copy the images to the GPU before all other steps, for two reasons.  The CPU cores stay
        # free for decoding.  The images are still uint8: the normalised images are float32, and a
        # copy of them would have four times the bytes.
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
    """Define the DALI pipeline that converts JPEG bytes or pixels to augmented RGB images.

    ``DecodeGraph`` documents the parameters.
    """
    if source == "pixels":
        image = external_input("image", DALIDataType.UINT8, 3, layout="HWC", no_copy=True)
    else:
        jpeg = external_input("image", DALIDataType.UINT8, 1, no_copy=True)
        image = fn.decoders.image(jpeg, **decoder_options(decode))
    return augment(image, augmentation) if finish == "bytes" else to_planes(image, augmentation)


class PipelineQueue:
    """Queue of batches in a DALI pipeline with external sources, at most ``depth`` in flight.

    ``depth`` is the pipeline's ``prefetch_queue_depth``.  The pipeline starts when ``depth``
    batches have been fed.  ``decodes_on_gpu`` is True if the pipeline decodes JPEGs on the GPU;
    only error messages use it.
    """

    def __init__(self, pipeline: Pipeline, depth: int, decodes_on_gpu: bool = False):
        self._pipeline, self._depth = pipeline, depth
        self.device_id, self.decodes_on_gpu = pipeline.device_id, decodes_on_gpu
        self._fed = self._scheduled = self._released = 0
        self._inputs: deque[Any] = deque()  # keeps fed arrays alive: DALI reads them in place
        pipeline.build()

    def __del__(self) -> None:
        # Delete the pipeline before the inputs: the pipeline's threads read the inputs until the
        # threads stop.
        self.__dict__.pop("_pipeline", None)

    def feed_inputs(self, inputs: dict[str, Any]) -> None:
        """Add a batch: a dict from the name of each external source to its values.

        The pipeline starts its first ``depth`` batches together.  It starts a later batch as soon
        as fewer than ``depth`` batches are in flight.
        """
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        self._inputs.append(inputs)
        self._fed += 1
        self._schedule()

    def take(self) -> Any:
        """Wait for the oldest batch; return its images as a DALI tensor list.

        The images stay valid until ``release`` is called.  Images on a GPU are complete: DALI waits
        for the CUDA event after the batch's last kernel.

        Raises
        ------
        RuntimeError
            If an image of any batch in flight cannot be decoded.  After this error the pipeline
            cannot be used any more.
        """
        return self._pipeline.share_outputs()[0]

    def release(self) -> None:
        """Release the images that the last ``take`` returned; DALI may then start another batch."""
        self._pipeline.release_outputs()
        self._inputs.popleft()
        self._released += 1
        self._schedule()

    def _schedule(self) -> None:
        while self._scheduled < min(self._fed, self._released + self._depth):
            if self._fed < self._depth:
                return
            self._pipeline.schedule_run()
            # The first call of schedule_run starts ``depth`` batches, each later call one batch.
            self._scheduled += 1 if self._scheduled else self._depth


class DecodeGraph(PipelineQueue):
    """Queue of batches that DALI converts from JPEG bytes or pixels to images.

    Parameters
    ----------
    batch_size
        Maximum number of images per batch.
    decode
        Name of the decode mode in PATHS.
    threads
        Number of worker threads.
    depth
        Maximum number of batches in flight.
    device_id
        Number of the GPU that receives the images, or None for the CPU.
    augmentation
        Augmentation settings.  The argument ``params`` of ``feed`` must be drawn with the same
        settings.
    source
        Kind of the input: "jpeg" (JPEG bytes) or "pixels".
    finish
        Kind of the output: "float" means planes, float32 (3, H, W), mirrored and normalised;
        "bytes" means pixels, uint8 (H, W, 3), neither mirrored nor normalised.
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
        """Add a batch of B images.  Feed ``depth`` batches before the first ``take``.

        JPEG bytes are a list of B arrays, uint8 (n,), or one array, uint8 (B, S), with padding
        after each image.  Pixels are uint8 (B, H, W, 3).  Do not change the arrays before the batch
        is released.  ``params`` may be None if the graph neither augments nor mirrors images.
        """
        inputs: dict[str, Any] = {"image": images}
        if params is not None:
            inputs |= augment_inputs(params, self._augmentation)
        if self._finish == "bytes":
            inputs.pop("mirror", None)
        self.feed_inputs(inputs)


def release_memory() -> None:
    """Release the GPU memory that DALI still holds for deleted pipelines."""
    dali_backend: Any = backend  # DALI's type stubs lack ReleaseUnusedMemory
    dali_backend.ReleaseUnusedMemory()


def find_faulty_image(
    jpegs: Sequence[np.ndarray], image_size: tuple[int, int]
) -> tuple[int, str] | None:
    """Find the first image that cannot be decoded or whose size is not ``image_size``.

    Returns None if there is no such image.  Otherwise returns (index in ``jpegs``, fault), where
    the fault is the predicate of an error message, such as "cannot be decoded".  The function
    decodes one image at a time on the CPU, which is slow, so call it only for a batch that failed.
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

    nvJPEG needs the driver's library libnvcuvid.so.1 to use the hardware.  Without that library, as
    in containers that lack the driver capability "video", nvJPEG silently decodes without the
    hardware.  Source: replies of NVIDIA in the GitHub issues CUDALibrarySamples 132 and
    nvImageCodec 26.  ``load`` loads a shared library and raises OSError if it cannot.
    """
    try:
        load("libnvcuvid.so.1")
    except OSError as error:
        return (
            "decode: nvJPEG cannot use a hardware JPEG decoder, so the modes mixed, mixed_cuda and "
            f"mixed_hardware decode alike; libnvcuvid.so.1 must be loadable, got {error}; in a "
            "container set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    return "decode: libnvcuvid.so.1 is loaded, so nvJPEG can use JPEG hardware if the GPU has any"

# SPDX-License-Identifier: Apache-2.0
"""The ways from JPEG bytes to pixels, and which of them is taken where their rates are known.

All but ``cpu`` and ``native`` need a GPU.  DALI's decoder for GPUs, "mixed", gives a share of each
batch to the JPEG hardware that some GPUs have (A100, H100); of the others the CPU decodes the
Huffman codes and the GPU the rest, unless a picture has more pixels than a threshold.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple


class DecodePath(NamedTuple):
    """How DALI decodes."""

    device: str
    """Of the decoder: "cpu" or "mixed"."""
    hw_decoder_load: float = 0.65
    """mixed: share of a batch that goes to the JPEG hardware, where there is any; 0.65 is DALI's
    default."""
    hybrid_huffman_threshold: int = 1_000_000
    """mixed: the GPU takes part in the Huffman decoding of pictures with more pixels; 1,000,000 is
    DALI's default."""


PATHS = {
    "cpu": DecodePath("cpu"),
    # The compiled decoder, on the CPU; DALI takes its pixels, and the pictures that it leaves.
    "native": DecodePath("cpu"),
    "mixed": DecodePath("mixed"),
    "mixed_cuda": DecodePath("mixed", hw_decoder_load=0.0),
    "mixed_hardware": DecodePath("mixed", hw_decoder_load=1.0),
    # A picture of 112x112 has 12,544 pixels.
    "mixed_gpu_huffman": DecodePath("mixed", 0.0, hybrid_huffman_threshold=1000),
}
"""By name, as ``data.decode`` has it; launch/config/sections.py lists the same names."""


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

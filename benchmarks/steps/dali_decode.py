# SPDX-License-Identifier: Apache-2.0
"""Run DALI's reader and decoder alone: an upper bound of the rate of loaders that use DALI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.decode.dali import decoder_options, fn, pipeline_def


@pipeline_def
def _decode_only(rec: str, index: str) -> Any:
    jpeg, _ = fn.readers.mxnet(
        path=[rec], index_path=[index], random_shuffle=True, tensor_init_bytes=16384
    )
    return fn.decoders.image(jpeg, **decoder_options("cpu"))


def decode_alone(rec: Path, index: Path, batch_size: int, threads: int) -> Iterator[None]:
    """Read and decode batches on the CPU with DALI, and discard them; yield after each batch."""
    pipeline = _decode_only(
        str(rec), str(index), batch_size=batch_size, num_threads=threads, device_id=None
    )
    pipeline.build()
    pipeline.schedule_run()
    while True:
        pipeline.share_outputs()
        yield
        pipeline.release_outputs()
        pipeline.schedule_run()

# SPDX-License-Identifier: Apache-2.0
"""Run the decoders of pipeline/decode alone, for benchmarks/decode_grid.py."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from benchmarks.harness.worker import Work, serve

if TYPE_CHECKING:
    from pipeline.records import RecordSet


def warm_batches(
    records: RecordSet, path: str, *, batch: int, threads: int, device_id: int | None
) -> Generator[Any, None, None]:
    """Warm up a decoder and return an endless generator of its batches.

    The docstring of `build` describes the parameters.

    Raises
    ------
    RuntimeError, RecordError
        If the decode mode is not available on this machine.
    """
    import mxnet as mx

    import ops
    from pipeline.decode.autotune import sample_batches, warm_up
    from pipeline.sampling.augmentation import Augmentation

    ops.use("auto")
    batches = sample_batches(
        records,
        path,
        batch_size=batch,
        threads=threads,
        ctx=mx.cpu() if device_id is None else mx.gpu(device_id),
        augmentation=Augmentation(),
    )
    warm_up(batches, batch)
    return batches


def build(
    *,
    records: str,
    scratch: str,
    path: str,
    threads: int,
    device_id: int | None,
    batch: int,
    batches: int,
) -> Work:
    """Return the `Work` of a decoder, which yields mirrored, normalised float32 NCHW arrays.

    Parameters
    ----------
    records
        Folder of the record set.
    scratch
        Temporary folder.
    path
        Decode mode, a name in pipeline.decode.dali.PATHS.
    threads
        Number of decoder threads.
    device_id
        Number of the GPU that receives the batches; None for CPU memory.
    batch, batches
        Number of images per batch, and of batches per step.
    """
    from launch.environment.provenance import versions
    from pipeline.decode.dali_decoder import IN_FLIGHT_GROUPS
    from pipeline.decode.decoders import batches_per_group
    from pipeline.records import open_records

    stream = warm_batches(
        open_records(records, scratch), path, batch=batch, threads=threads, device_id=device_id
    )

    def take(count: int) -> float:
        for _ in range(count):
            next(stream)
        return 0.0

    def step(mark: Callable[[], None]) -> float:
        return take(batches)

    def begin() -> None:
        # The decoder's queue may hold these batches already, so their decoding cannot be timed.
        take(IN_FLIGHT_GROUPS * batches_per_group(batch))

    return Work(step, 0, 0, {k: v for k, v in versions().items() if k != "python"}, begin=begin)


def warm() -> None:
    """Import the decoders, so that the import does not count as memory of a step."""
    import pipeline.decode.dali  # noqa: F401


if __name__ == "__main__":
    serve(build, warm)

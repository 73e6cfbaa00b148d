# SPDX-License-Identifier: Apache-2.0
"""Our decoders alone, as the other end of benchmarks/decode_grid.py.

What the benchmark calls in pipeline/decode is called here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from benchmarks.harness.worker import Work, serve

if TYPE_CHECKING:
    from pipeline.records import RecordSet

PREFETCHED_BATCHES = 4  # two of which are prefetched while others have their turns


def warm_batches(
    records: RecordSet, path: str, *, batch: int, threads: int, device_id: int | None
) -> Generator[Any, None, None]:
    """Return endless batches of a set's decoder, warmed up; parameters as `build` has them.

    Raises
    ------
    RuntimeError, RecordError
        If the path is not available on this machine.
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
    """Build a decoder, warmed up, whose batches are float32 NCHW, mirrored and normalised.

    Parameters
    ----------
    records, scratch
        Folder of the record set, and one to write to.
    path, threads
        Name in pipeline.decode.dali.PATHS, decoder threads.
    device_id
        GPU on which the batches end; None for the memory of the CPU.
    batch, batches
        Images of a batch, batches of a step.
    """
    from launch.environment.provenance import versions
    from pipeline.records import open_records

    made = warm_batches(
        open_records(records, scratch), path, batch=batch, threads=threads, device_id=device_id
    )

    def turns(count: int) -> float:
        for _ in range(count):
            next(made)
        return 0.0

    def step(mark: Callable[[], None]) -> float:
        return turns(batches)

    def begin() -> None:
        turns(PREFETCHED_BATCHES)

    return Work(step, 0, 0, {k: v for k, v in versions().items() if k != "python"}, begin=begin)


def warm() -> None:
    """Load what decodes."""
    import pipeline.decode.dali  # noqa: F401


if __name__ == "__main__":
    serve(build, warm)

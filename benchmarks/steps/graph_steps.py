# SPDX-License-Identifier: Apache-2.0
"""Our decode graph alone, as the other end of benchmarks/decode_grid.py.

The path ``native`` alone needs mxnet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.harness.worker import Work, serve

if TYPE_CHECKING:
    from ops.feed import LoaderKernels

AHEAD = 4  # batches, two of which were made while others had their turns


def compiled() -> LoaderKernels | None:
    """Return the compiled functions of loaders, None where they cannot be had."""
    try:
        import ops
    except ImportError:  # no mxnet
        return None
    ops.use("auto")
    return ops.loader_kernels()


def build(
    records: str,
    scratch: str,
    path: str,
    threads: int,
    device_id: int | None,
    batch: int,
    batches: int,
) -> Work:
    """Build a graph, warmed up, whose batches are float32 NCHW, mirrored and normalised.

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
    from pipeline.decode.autotune import Probe
    from pipeline.records.open import open_records
    from pipeline.sampling.augmentation import Augmentation

    opened = open_records(records, scratch)
    probe = Probe(opened, path, batch, threads, device_id, Augmentation(), compiled())

    def turns(count: int) -> float:
        for _ in range(count):
            probe.turn()
        return 0.0

    def step(mark: Callable[[], None]) -> float:
        return turns(batches)

    def begin() -> None:
        turns(AHEAD)

    return Work(step, 0, 0, {k: v for k, v in versions().items() if k != "python"}, begin=begin)


def warm() -> None:
    """Load what decodes."""
    import pipeline.decode.dali  # noqa: F401


if __name__ == "__main__":
    serve(build, warm)

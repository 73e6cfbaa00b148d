# SPDX-License-Identifier: Apache-2.0
"""Our decoders alone, as the other end of benchmarks/decode_grid.py.

The path ``native`` alone needs mxnet.  What the benchmark calls in pipeline/decode is called here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.harness.worker import Work, serve

if TYPE_CHECKING:
    from ops.feed import Feed
    from pipeline.records import RecordSet

PREFETCHED_BATCHES = 4  # two of which are prefetched while others have their turns


def compiled() -> Feed | None:
    """Return the compiled functions of loaders, None if they are not available."""
    try:
        import ops
    except ImportError:  # no mxnet
        return None
    ops.use("auto")
    return ops.feed()


def probe(
    records: RecordSet,
    path: str,
    *,
    batch: int,
    threads: int,
    device_id: int | None,
    kernels: Feed | None,
) -> Any:
    """Return a warm decoder of a set: ``turn()``, ``rate(seconds)``, ``close()``.

    Parameters
    ----------
    path, threads, device_id, batch
        As `build` has them.
    kernels
        What `compiled` returns.

    Raises
    ------
    RuntimeError
        If the path is not available on this machine.
    """
    from pipeline.decode.autotune import Probe
    from pipeline.sampling.augmentation import Augmentation

    return Probe(records, path, batch, threads, device_id, Augmentation(), feed=kernels)


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
    """Build a graph, warmed up, whose batches are float32 NCHW, mirrored and normalised.

    Parameters
    ----------
    records, scratch
        Folder of the record set, and one to write to.
    path, threads
        Name in pipeline.decode.decode_paths.PATHS, decoder threads.
    device_id
        GPU on which the batches end; None for the memory of the CPU.
    batch, batches
        Images of a batch, batches of a step.
    """
    from launch.environment.provenance import versions
    from pipeline.records import open_records

    decoder = probe(
        open_records(records, scratch),
        path,
        batch=batch,
        threads=threads,
        device_id=device_id,
        kernels=compiled(),
    )

    def turns(count: int) -> float:
        for _ in range(count):
            decoder.turn()
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

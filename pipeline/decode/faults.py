# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a batch that DALI cannot finish, in one sentence that names the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decode.dali import PipelineQueue, find_faulty
from pipeline.records import RecordError, RecordSet

if TYPE_CHECKING:
    from pipeline.records.reader import RecordReader


class GraphError(RecordError):
    """A graph fails on images that the CPU decodes."""


def take_dense(
    reader: RecordReader,
    graph: PipelineQueue,
    in_flight: Sequence[np.ndarray],
    *,
    gpu: int | None = None,
    decodes_on_gpu: bool = False,
) -> Any:
    """Return the oldest batch of a graph as a dense tensor; name the damaged image if it fails.

    ``in_flight`` has the rows of each batch in the graph, ``gpu`` is the number of the GPU on which
    it ends.

    Raises
    ------
    RecordError
        If an image cannot be decoded or has another size; GraphError if the graph fails on images
        that the CPU decodes.
    """
    records, fault, images = reader.records, None, None
    try:
        images = graph.take()
    except RuntimeError as error:
        fault = error
    if images is not None and images.is_dense_tensor():
        tensor = images.as_tensor()
        shape = tuple(tensor.shape())
        if (shape[1:3] if shape[-1] == 3 else shape[2:]) == tuple(records.image_size):
            return tensor
    rows = np.concatenate(in_flight)
    found = find_faulty(list(reader.gather(rows)), records.image_size)
    reader.check_files()  # a shortened file gives zeros, which are no fault of an image
    if found is not None:
        place, what = found
        raise records.image_error(int(rows[place]), what) from None
    if fault is not None:
        raise GraphError(_graph_fault(records, rows, fault, gpu, decodes_on_gpu)) from None
    raise RecordError(
        f"{records.name}: holds images of several sizes, got a batch that is not all "
        f"{records.image_size}"
    )


def _graph_fault(
    records: RecordSet, rows: np.ndarray, fault: RuntimeError, gpu: int | None, decodes_on_gpu: bool
) -> str:
    """Return the sentence for a graph that fails on images which the CPU decodes one by one."""
    which = []
    for place in np.unique(records.file[rows]):
        keys = records.keys[rows[records.file[rows] == place]]
        which.append(f"{records.files[place]} between keys {keys.min()} and {keys.max()}")
    who, what = ("DALI" if gpu is None else f"GPU {gpu}"), "decode"
    cure = "use data.decode=native, or a smaller data.batch_size if memory is full"
    if decodes_on_gpu:
        cure = "the CPU can: data.decode=native"
    elif gpu is not None:
        what = "finish"
        cure = "use a smaller data.batch_size if its memory is full, else run.device=cpu"
    return (
        f"{who} could not {what} images of {' and '.join(which)}, DALI says: "
        f"{reason_of(fault)}; {cure}"
    )


def reason_of(fault: RuntimeError) -> str:
    """Return DALI's error message as one line, without the stack around it."""
    lines = [line.strip() for line in str(fault).splitlines()]
    start = max((i + 1 for i, line in enumerate(lines) if line.endswith("encountered:")), default=0)
    said = []
    for line in lines[start:]:
        if line.startswith(("Stacktrace", "Current pipeline object")):
            break
        said.append(line)
    return " ".join(filter(None, said)).removeprefix("Critical error in pipeline: ") or "nothing"

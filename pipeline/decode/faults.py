# SPDX-License-Identifier: Apache-2.0
"""Errors for batches that DALI cannot finish; the messages name the damaged image if one exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decode.dali import PipelineQueue, find_faulty_image
from pipeline.records import RecordError, RecordSet

if TYPE_CHECKING:
    from pipeline.records.reader import RecordReader


class GraphError(RecordError):
    """Error for a DALI pipeline that failed although the CPU can decode all images in flight."""


def take_tensor(reader: RecordReader, graph: PipelineQueue, in_flight: Sequence[np.ndarray]) -> Any:
    """Wait for the oldest batch of a pipeline; return its images as a dense DALI tensor.

    ``in_flight`` holds the rows of each batch in the pipeline (rows of the record set), the oldest
    batch first.

    Raises
    ------
    RecordError
        If an image cannot be decoded or does not have the image size of the record set.
    GraphError
        If the pipeline fails although the CPU can decode all images in flight.
    """
    try:
        output = graph.take()
    except RuntimeError as error:
        output = error
    return check_output(reader, graph, in_flight, output)


def check_output(
    reader: RecordReader, graph: PipelineQueue, in_flight: Sequence[np.ndarray], output: Any
) -> Any:
    """Return the images of a finished batch as a dense DALI tensor, or raise an error.

    The errors are those of ``take_tensor``.  ``output`` is what ``graph.take()`` returned, or the
    RuntimeError that it raised.
    """
    records, error = reader.records, output if isinstance(output, RuntimeError) else None
    if error is None and output.is_dense_tensor():
        tensor = output.as_tensor()
        shape = tuple(tensor.shape())
        if (shape[1:3] if shape[-1] == 3 else shape[2:]) == tuple(records.image_size):
            return tensor
    rows = np.concatenate(in_flight)
    found = find_faulty_image(list(reader.gather(rows)), records.image_size)
    # If a file was truncated, its missing bytes read as zeros, which look like a damaged image.  So
    # report a truncated file before a damaged image.
    reader.check_files()
    if found is not None:
        index, what = found
        raise records.image_error(int(rows[index]), what) from None
    if error is not None:
        raise GraphError(_graph_error(records, rows, graph, error)) from None
    raise RecordError(
        f"{records.name}: all images must have one size, got a batch with images that do not "
        f"have (height, width) = {records.image_size}; write the record set from images of one size"
    )


def _graph_error(
    records: RecordSet, rows: np.ndarray, graph: PipelineQueue, error: RuntimeError
) -> str:
    """Return a message that names the device that failed, the images in flight and a remedy."""
    images = []
    for file in np.unique(records.file[rows]):
        keys = records.keys[rows[records.file[rows] == file]]
        images.append(f"{records.files[file]} between keys {keys.min()} and {keys.max()}")
    verb, remedy = (
        "decode",
        "use data.decode=native, or a smaller data.batch_size if memory is full",
    )
    if graph.decodes_on_gpu:
        remedy = "the CPU can decode them, so use data.decode=native"
    elif graph.device_id is not None:
        verb = "finish"
        remedy = "use a smaller data.batch_size if GPU memory is full, else run.device=cpu"
    subject = "DALI" if graph.device_id is None else f"GPU {graph.device_id}"
    return (
        f"{subject} could not {verb} images of "
        f"{' and '.join(images)}, got from DALI: {dali_message(error)}; {remedy}"
    )


def dali_message(error: RuntimeError) -> str:
    """Return DALI's error message on one line, without stack traces.

    Returns "nothing" if no message remains.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    start = max((i + 1 for i, line in enumerate(lines) if line.endswith("encountered:")), default=0)
    message = []
    for line in lines[start:]:
        if line.startswith(("Stacktrace", "Current pipeline object")):
            break
        message.append(line)
    return " ".join(filter(None, message)).removeprefix("Critical error in pipeline: ") or "nothing"

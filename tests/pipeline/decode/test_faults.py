# SPDX-License-Identifier: Apache-2.0
"""Errors for batches that a graph cannot finish."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.decode.dali import DecodeGraph
from pipeline.decode.faults import GraphError, dali_message, take_tensor
from pipeline.records import ImageError, RecordError, RecordReader, open_records
from pipeline.sampling.augmentation import NO_AUGMENTATION

NVJPEG = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
which was used in the pipeline definition with the following traceback:

  File "/train/pipeline/dali.py", line 76, in _decode_graph
    image = fn.decoders.image(

encountered:

Error in thread 0: nvJPEG error (8): NVJPEG_STATUS_EXECUTION_FAILED
Stacktrace (9 entries):
[frame 0]: /opt/libdali_operators.so(+0x4c81c2) [0x7f]
Current pipeline object is no longer valid."""
SAID = "Error in thread 0: nvJPEG error (8): NVJPEG_STATUS_EXECUTION_FAILED"


class Failing:
    """A graph that cannot finish its batch."""

    def __init__(self, text: str, device_id: int | None = None, decodes_on_gpu: bool = False):
        self.text, self.device_id, self.decodes_on_gpu = text, device_id, decodes_on_gpu

    def take(self):
        raise RuntimeError(self.text)


@pytest.fixture(scope="module")
def records(tiny_records, tmp_path_factory):
    return open_records(tiny_records, tmp_path_factory.mktemp("index"))


def refused(records, rows, text=NVJPEG, error=GraphError, **options) -> str:
    reader = RecordReader(records)
    with pytest.raises(RecordError) as caught:
        take_tensor(reader, Failing(text, **options), np.array_split(rows, 2))
    assert type(caught.value) is error and isinstance(caught.value, ValueError)
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_failure_of_a_gpu_decoder_names_the_gpu_and_the_keys(records):
    rows = np.array([40, 7, 99, 12])
    keys = records.keys[rows]
    assert refused(records, rows, device_id=3, decodes_on_gpu=True) == (
        f"GPU 3 could not decode images of {records.files[0]} between keys {keys.min()} and "
        f"{keys.max()}, got from DALI: {SAID}; the CPU can decode them, so use data.decode=native"
    )


def test_a_failure_after_decoding_is_no_failure_of_the_decoder(records):
    text = "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"
    said = refused(records, np.arange(4), text, device_id=0)
    assert said.startswith(f"GPU 0 could not finish images of {records.files[0]} between keys ")
    assert said.endswith(
        "got from DALI: CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory; use a "
        "smaller data.batch_size if GPU memory is full, else run.device=cpu"
    )


def test_a_failure_on_the_cpu_names_dali(records):
    said = refused(records, np.arange(4))
    assert said.startswith(f"DALI could not decode images of {records.files[0]} between keys ")
    assert said.endswith("use data.decode=native, or a smaller data.batch_size if memory is full")


def test_every_set_is_named_with_its_keys(make_records, tmp_path):
    folders = [make_records(2, 3), make_records(3, 2)]
    both = open_records(folders, tmp_path)
    said = refused(both, np.array([1, 2, 7, 9]), device_id=1, decodes_on_gpu=True)
    first, second = both.files
    assert (
        f" images of {first} between keys {both.keys[1]} and {both.keys[2]} and {second} " in said
    )
    assert f"{second} between keys {both.keys[7]} and {both.keys[9]}, got from DALI" in said


def test_a_damaged_image_is_named_by_its_key(make_records, make_face, tmp_path):
    images = [(i // 2, make_face(i // 2, i)) for i in range(6)]
    images[3] = (1, images[3][1].replace(b"\xff\xdb", b"\xff\xfe"))
    broken = open_records(make_records(3, 2, samples=images), tmp_path)
    said = refused(broken, np.arange(6), device_id=3, decodes_on_gpu=True, error=ImageError)
    assert said.startswith(
        f"{broken.files[0]}: the image of key {broken.keys[3]} cannot be decoded; "
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Critical error in pipeline: [mixed] nvJPEG error (8)", "[mixed] nvJPEG error (8)"),
        ("Critical error in pipeline:\nCUDA error\nout of memory\n", "CUDA error out of memory"),
        (NVJPEG, SAID),
        (NVJPEG.replace("\n\nencountered:", " encountered:"), SAID),
        ("", "nothing"),
    ],
)
def test_messages_of_dali_become_one_line(text, said):
    assert dali_message(RuntimeError(text)) == said


def test_a_real_message_of_dali_becomes_one_line():
    graph = DecodeGraph(1, "cpu", 1, 1, None, NO_AUGMENTATION, finish="bytes")
    graph.feed([np.frombuffer(b"no image at all, but long enough", np.uint8)], None)
    with pytest.raises(RuntimeError) as caught:
        graph.take()
    said = dali_message(caught.value)
    assert "Stacktrace" not in said and "File" not in said and "no longer valid" not in said
    assert said.startswith("Error in thread 0: ")


def test_a_batch_of_several_sizes_is_refused_although_each_image_is_sound(records):
    graph = Failing("")
    graph.take = lambda: SimpleNamespace(is_dense_tensor=lambda: False)
    with pytest.raises(RecordError) as caught:
        take_tensor(RecordReader(records), graph, [np.arange(4)])
    assert str(caught.value) == (
        f"{records.name}: all images must have one size, got a batch with images that do not have "
        "(height, width) = (112, 112); write the record set from images of one size"
    )

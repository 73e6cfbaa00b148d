# SPDX-License-Identifier: Apache-2.0
"""The pipeline that reads records itself: its order, its images and its errors."""

from __future__ import annotations

import dataclasses
import gc
from itertools import islice
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode import dali_reader
from pipeline.decode.dali import PATHS, DecodeGraph, fn, pipeline_def
from pipeline.decode.dali_reader import (
    IN_FLIGHT_BATCHES,
    DaliReaderDecoder,
    read_pipeline,
)
from pipeline.records import RecordError, RecordReader, mapped, open_records
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Share, batch_plans
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import WindowSampler
from pipeline.sampling.window_order import window_order
from tests.pipeline.test_turned_images import stored_size, turned

SEED, BATCH, EPOCH = 3, 5, 4
AUGMENTATIONS = {
    "none": Augmentation(mirror=False),
    "mirror": Augmentation(),
    "quality": Augmentation(jpeg_quality=(2, 20)),
    "colour": Augmentation(color_jitter=0.3),
    "grey": Augmentation(grey=0.5),
    "shift": Augmentation(shift=9),
    "cut-out": Augmentation(cut_out=50),
    "all": Augmentation(
        color_jitter=0.3, jpeg_quality=(10, 30), cut_out=50, shift=9, grey=0.3, mirror=True
    ),
}
ALL = AUGMENTATIONS["all"]
COLUMNS = ("file", "keys", "offsets", "labels")
CHANGES = ("JpegCompressionDistortion", "Mean", "CoordTransform", "Slice", "Erase")


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    """Return 203 images, with identity records between them."""
    return open_records(make_records(29, 7), tmp_path_factory.mktemp("sampler"))


@pytest.fixture(scope="module")
def oblong(make_records, make_face, tmp_path_factory):
    """Return a set of 48 images; Exif rotates some in the last two thirds."""
    size = (64, 48)
    jpegs = [turned(make_face(n, 0, stored_size(size, n)), n) for n in range(32)]
    jpegs = [make_face(n, 1, size) for n in range(16)] + jpegs
    images = [(n // 2, jpeg) for n, jpeg in enumerate(jpegs)]
    folder = make_records(24, 2, samples=images, image_size=size)
    return open_records(folder, tmp_path_factory.mktemp("sampler"))


def windows(records, share, window, batch_size=BATCH):
    kernels = ops.loader_kernels()
    order_of = kernels.window_order if kernels else window_order
    return WindowSampler(
        records, batch_size, window=window, seed=SEED, share=share, order_of=order_of
    )


def plans_of(records, sampler, epoch, augmentation):
    batches = sampler.batches(Position(epoch, 0))
    return batch_plans(records, batches, seed=SEED, augmentation=augmentation)


def decoding(records, folder, sampler, augmentation, *, ctx=None, reader=None):
    return DaliReaderDecoder(
        sampler,
        reader or RecordReader(records, ops.loader_kernels()),
        decode="cpu",
        threads=2,
        augmentation=augmentation,
        ctx=ctx or mx.cpu(),
        index_folder=folder / "index",
    )


def decoded(records, folder, sampler, augmentation, count, **options):
    """Return the images and plans of some batches; the images are read after the last batch."""
    plans = plans_of(records, sampler, EPOCH, augmentation)
    decoder = decoding(records, folder, sampler, augmentation, **options)
    found = list(islice(decoder(plans), count))
    decoder.close()
    return [image.asnumpy() for image, _ in found], [plan for _, plan in found]


def by_row(records, plans, augmentation):
    """Return the images of plans from a graph that is fed JPEGs read by row."""
    reader = RecordReader(records)
    graph = DecodeGraph(len(plans[0].rows), "cpu", 1, 1, None, augmentation)
    images = []
    for plan in plans:
        graph.feed(reader.gather(plan.rows), plan.params)
        images.append(np.array(graph.take().as_tensor()))
        graph.release()
    return images


@pipeline_def
def places_of(options):
    jpeg, _ = fn.readers.mxnet(**options)
    return fn.pad(fn.get_property(jpeg, key="source_info"), fill_value=0)


def rows_by_dali(records, options, batch_size, steps):
    """Return the rows that a reader with these options delivers, from its ``source_info``."""
    pipe = places_of(options, batch_size=batch_size, num_threads=1, device_id=None)
    pipe.build()
    lines = []
    for _ in range(steps):
        (text,) = pipe.run()
        lines += [bytes(line).rstrip(b"\0").decode() for line in np.array(text.as_tensor())]
    row_at = {int(offset): row for row, offset in enumerate(records.offsets)}
    begin = f"{records.files[0]} at index "
    assert all(line.startswith(begin) for line in lines)
    return np.array([row_at[int(line[len(begin) :])] for line in lines]).reshape(steps, batch_size)


@pytest.mark.parametrize("kind", ["plain", "native", "rows in another order"])
@pytest.mark.parametrize("window", [1, 2, 40, 1000])
@pytest.mark.parametrize("size", [1, 3])
def test_plans_are_in_the_order_of_the_reader(records, tmp_path, monkeypatch, window, size, kind):
    ops.use("plain" if kind == "plain" else "native")
    if kind == "rows in another order":
        rows = np.random.default_rng(0).permutation(len(records))
        columns = {name: getattr(records, name)[rows] for name in COLUMNS}
        records = dataclasses.replace(records, **columns)
    options: list[dict] = []
    reader = fn.readers.mxnet

    def seen(**asked):
        options.append(asked)
        return reader(**asked)

    monkeypatch.setattr(fn.readers, "mxnet", seen)
    steps = len(records) // (BATCH * size)
    for rank in range(size):
        options.clear()
        sampler = windows(records, Share(rank, size), window)
        _, plans = decoded(records, tmp_path, sampler, Augmentation(), 2 * steps)
        images = BATCH * size
        expected = [
            Position(e, n * images) for e in (EPOCH, EPOCH + 1) for n in range(1, steps + 1)
        ]
        assert [plan.after for plan in plans] == expected
        shards = [(rank + EPOCH) % size, (rank + EPOCH + 1) % size]
        assert [asked["shard_id"] for asked in options[:2]] == shards
        for epoch, asked in enumerate(options[:2]):
            theirs = rows_by_dali(records, asked, BATCH, steps)
            ours = [plan.rows for plan in plans[epoch * steps : (epoch + 1) * steps]]
            assert (np.array(ours) == theirs).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize(
    ("window", "rank", "size", "operators"),
    [(1, 0, 1, "native"), (40, 0, 1, "plain"), (40, 1, 3, "native")],
)
def test_images_equal_those_read_by_row(
    records, tmp_path, augmentation, window, rank, size, operators
):
    ops.use(operators)
    steps = 5 * (len(records) // (BATCH * size)) // 2  # into the third epoch
    sampler = windows(records, Share(rank, size), window)
    images, plans = decoded(records, tmp_path, sampler, augmentation, steps)
    for image, expected in zip(images, by_row(records, plans, augmentation), strict=True):
        assert image.dtype == np.float32 and image.shape == (BATCH, 3, 112, 112)
        assert (image == expected).all()
    mirrors = np.concatenate([plan.params.mirror for plan in plans])
    assert set(mirrors.tolist()) == {False, augmentation.mirror}


@pytest.mark.parametrize("batch_size", [1, 67, 203])
def test_epochs_of_one_and_more_batches(records, tmp_path, monkeypatch, batch_size):
    started: list[int] = []
    start = DaliReaderDecoder._start

    def seen(self, epoch, *arguments):
        started.append(epoch)
        assert len(self._queues) <= 1  # this epoch and the next
        return start(self, epoch, *arguments)

    monkeypatch.setattr(DaliReaderDecoder, "_start", seen)
    steps = len(records) // batch_size
    sampler = windows(records, Share(), 40, batch_size)
    count = 2 * steps + 1
    images, plans = decoded(records, tmp_path, sampler, Augmentation(), count)
    assert [plan.after.epoch - EPOCH for plan in plans] == [k // steps for k in range(count)]
    for image, expected in zip(images, by_row(records, plans, Augmentation()), strict=True):
        assert (image == expected).all()
    assert started[:3] == [EPOCH, EPOCH + 1, EPOCH + 2]


def test_the_next_epoch_starts_before_it_is_due(records, tmp_path, monkeypatch):
    monkeypatch.setattr(dali_reader, "EARLY_IMAGES", 4 * BATCH)
    sampler = windows(records, Share(), 40)
    decoder = decoding(records, tmp_path, sampler, Augmentation())
    steps = len(records) // BATCH
    plans = plans_of(records, sampler, 0, Augmentation())
    alive = []
    for _ in islice(decoder(plans), steps + 1):
        alive.append(sorted(decoder._queues))
    assert alive == [[0]] * (steps - 4) + [[0, 1]] * 3 + [[1]] * 2
    decoder.close()


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("augmentation", [Augmentation(), ALL], ids=["mirror", "all"])
def test_images_rotated_by_exif_are_upright(oblong, tmp_path, monkeypatch, augmentation, guarded):
    ops.use("native")
    mapped.guard_with(ops.guard() if guarded else None)
    asked: list[bool] = []
    reader = fn.readers.mxnet

    def seen(**options):
        asked.append(not options["dont_use_mmap"])
        return reader(**options)

    monkeypatch.setattr(fn.readers, "mxnet", seen)
    sampler = windows(oblong, Share(), 8, 4)
    checked = RecordReader(oblong, ops.loader_kernels())
    images, plans = decoded(oblong, tmp_path, sampler, augmentation, 24, reader=checked)
    turns = [checked.check(plan.rows) is not None for plan in plans]
    assert set(turns) == {True, False}
    for image, expected in zip(images, by_row(oblong, plans, augmentation), strict=True):
        assert image.shape == (4, 3, 64, 48) and (image == expected).all()
    assert set(asked) == {guarded}
    mapped.guard_with(None)


def test_ranks_share_one_index_of_the_images_alone(records, tmp_path):
    for rank in range(2):
        sampler = windows(records, Share(rank, 2), 40)
        decoded(records, tmp_path, sampler, Augmentation(), 1)
    (index,) = (tmp_path / "index").glob("*.idx")
    lines = [f"{k}\t{o}" for k, o in zip(records.keys, records.offsets, strict=True)]
    assert index.read_text().splitlines() == lines


@pytest.fixture
def damaged(make_records, make_face, tmp_path):
    """Return ``damaged(number, data, at)`` -> 30 images; ``data`` overwrites part of one record."""

    def make(number, data, at=0):
        records = open_records(make_records(30, 1, header=False), tmp_path / "sampler")
        with records.files[0].open("r+b") as file:
            file.seek(int(records.offsets[number]) + at)
            file.write(data)
        return records

    return make


@pytest.mark.parametrize("turned_ones", [0, 1])
def test_a_damaged_image_is_named_by_its_key(make_records, make_face, tmp_path, turned_ones):
    jpegs = [make_face(n, 0) for n in range(30)]
    jpegs[11] = jpegs[11][:200] + bytes(20) + b"\xff\xd9"
    jpegs[12] = turned(jpegs[12], 3 * turned_ones)
    records = open_records(make_records(30, 1, samples=list(enumerate(jpegs))), tmp_path)
    key = records.keys[11]
    sampler = windows(records, Share(), 1)
    with pytest.raises(RecordError, match=rf"key {key} cannot be decoded; "):
        decoded(records, tmp_path, sampler, Augmentation(), 6)


def test_an_image_of_another_size_is_named_by_its_key(make_records, make_face, tmp_path):
    jpegs = [make_face(n, 0, (112, 96 if n == 11 else 112)) for n in range(30)]
    records = open_records(make_records(30, 1, samples=list(enumerate(jpegs))), tmp_path)
    sampler = windows(records, Share(), 1)
    with pytest.raises(RecordError, match=rf"key {records.keys[11]} is 112x96 pixels, not 112x112"):
        decoded(records, tmp_path, sampler, ALL, 6)


def test_a_missing_record_is_named_by_its_key(damaged, tmp_path):
    sampler = windows(records := damaged(22, b"none"), Share(), 10)
    with pytest.raises(RecordError, match="holds no complete record for key 22, got offset"):
        decoded(records, tmp_path, sampler, Augmentation(), 6)


def test_an_enormous_image_is_refused_before_dali_decodes_it(make_records, make_face, tmp_path):
    huge = bytearray(make_face(0, 0))
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = (13_000).to_bytes(2, "big") * 2
    jpegs = [make_face(n, 0) for n in range(30)]
    jpegs[11] = bytes(huge)
    records = open_records(make_records(30, 1, samples=list(enumerate(jpegs))), tmp_path)
    fault = rf"key {records.keys[11]} is 13000x13000 pixels, not 112x112"
    with pytest.raises(RecordError, match=fault):
        decoded(records, tmp_path, windows(records, Share(), 1), Augmentation(), 6)


def test_an_error_of_the_reader_is_one_sentence(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordReader, "check_sizes", lambda self, rows: None)
    records = damaged(22, b"none")
    sampler = windows(records, Share(), 10)
    said = (
        rf"^{records.files[0]}: cannot be read with data\.reader=window, got from DALI: Invalid "
        r"RecordIO: w.*; make or copy the file again, or use data\.reader=random$"
    )
    with pytest.raises(RecordError, match=said):
        decoded(records, tmp_path, sampler, Augmentation(), 6)


def test_a_failure_on_sound_images_is_reported_as_such(records, tmp_path, monkeypatch):
    def take(self):
        raise RuntimeError("Critical error in pipeline:\nno memory")

    monkeypatch.setattr(dali_reader.PipelineQueue, "take", take)
    searched: list[int] = []
    find = lambda jpegs, size: searched.append(len(jpegs))  # noqa: E731
    monkeypatch.setattr("pipeline.decode.faults.find_faulty_image", find)
    sampler = windows(records, Share(), 1)
    said = "DALI could not decode images of .*, got from DALI: no memory; use data.decode=native"
    with pytest.raises(RecordError, match=said):
        decoded(records, tmp_path, sampler, Augmentation(), 1)
    assert searched == [IN_FLIGHT_BATCHES * BATCH]  # all batches in flight


def test_closing_ends_the_threads_of_dali(records, tmp_path):
    def threads():
        return len(list(Path("/proc/self/task").iterdir()))

    sampler = windows(records, Share(), 40)
    decoded(
        records, tmp_path, sampler, Augmentation(), 2
    )  # starts the threads that a process has once
    gc.collect()
    before = threads()
    decoder = decoding(records, tmp_path, sampler, Augmentation())
    batches = decoder(plans_of(records, sampler, 0, Augmentation()))
    next(batches)
    assert threads() > before
    decoder.close()
    assert threads() == before


def traced(decode, device_id):
    """Return the decoder's arguments, and {operator: device}, without a build."""
    asked: list[dict] = []
    decoder = fn.decoders.image

    def image(data, **options):
        asked.append(options)
        return decoder(data, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fn.decoders, "image", image)
        options = {"path": ["train.rec"], "index_path": ["train.idx"]}
        pipe = read_pipeline(options, decode, ALL, batch_size=4, num_threads=1, device_id=device_id)
        # DALI refuses arguments that are not in the schema of the operator.
        pipe._build_graph()
    nodes = {op.name.strip("_").rsplit("_", 1)[0]: op.outputs[0].device for op in pipe._ops}
    return asked, nodes


@pytest.mark.parametrize("decode", [name for name in PATHS if name != "native"])
@pytest.mark.parametrize("device_id", [None, 0])
def test_images_stay_on_the_gpu_from_the_decoder_on(decode, device_id):
    if device_id is None and decode != "cpu":
        decode = "cpu"  # the others need a GPU
    (options,), nodes = traced(decode, device_id)
    path = PATHS[decode]
    assert options["device"] == path.device
    if path.device == "mixed":
        assert options["hw_decoder_load"] == path.hw_decoder_load
        assert options["hybrid_huffman_threshold"] == path.hybrid_huffman_threshold
    on = "cpu" if device_id is None else "gpu"
    assert {nodes[name] for name in (*CHANGES, "CropMirrorNormalize")} == {on}
    assert sum("Reader" in name or "MXNet" in name for name in nodes) == 1

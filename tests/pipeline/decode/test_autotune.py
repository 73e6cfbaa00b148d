# SPDX-License-Identifier: Apache-2.0
"""The choice of the decode mode: its rates, the same choice on all ranks, and errors."""

from __future__ import annotations

import threading

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode import autotune
from pipeline.decode.autotune import (
    PATHS,
    choose_decode_path,
    fastest_path,
    measure,
    sample_batches,
    sample_rows,
)
from pipeline.decode.decoders import NativeDecoder
from pipeline.decode.faults import GraphError
from pipeline.records import RecordError, open_records
from pipeline.sampling.augmentation import Augmentation

ALL = Augmentation(color_jitter=0.1, jpeg_quality=(2, 20), cut_out=9, shift=3, grey=0.1)
JOIN_SECONDS = 120


@pytest.fixture(scope="module")
def records(tiny_records, tmp_path_factory):
    return open_records(tiny_records, tmp_path_factory.mktemp("scan"))


def choose(records, gather=lambda rows: rows, ctx=None, seconds=0.5):
    return choose_decode_path(
        records,
        batch_size=8,
        threads=1,
        ctx=ctx or mx.cpu(),
        augmentation=Augmentation(),
        gather=gather,
        seconds=seconds,
    )


def batches_of(records, path, augmentation=Augmentation(), batch_size=48):
    return sample_batches(
        records,
        path,
        batch_size=batch_size,
        threads=1,
        ctx=mx.cpu(),
        augmentation=augmentation,
    )


@pytest.mark.parametrize(
    ("rates_of_ranks", "name"),
    [
        ([[9, 5, 7]], "a"),
        ([[9, 5, 7], [1, 5, 4]], "b"),  # the slowest rank decides
        ([[0, 5, 9], [9, 5, 0]], "b"),  # modes that a rank cannot use
        ([[3, 4, 4]], "b"),
        ([[0, 0, 0.1]], "c"),
    ],
)
def test_the_mode_whose_slowest_rank_is_fastest(rates_of_ranks, name):
    assert fastest_path(np.array(rates_of_ranks), "abc") == name


@pytest.mark.parametrize("rates_of_ranks", [[[0, 0]], [[5, 0], [0, 5]]])
def test_no_common_mode_is_refused(rates_of_ranks):
    with pytest.raises(ValueError, match=r"^data\.decode: .* one rank for each of a, b; use"):
        fastest_path(np.array(rates_of_ranks), "ab")


@pytest.mark.parametrize(
    ("operators", "kind", "chosen"),
    [
        ("native", "baseline", ("native", "decode: native, the compiled JPEG decoder on the CPU")),
        (
            "plain",
            "baseline",
            ("cpu", "decode: cpu, because the compiled functions are not available"),
        ),
        (
            "native",
            "progressive",
            (
                "cpu",
                "decode: cpu, because the compiled decoder does not support 64 of 64 sample images",
            ),
        ),
    ],
)
def test_without_a_gpu_nothing_is_measured(make_records, tmp_path, operators, kind, chosen):
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(kind == "progressive")]
    jpeg = cv2.imencode(".jpg", np.full((112, 112, 3), 99, np.uint8), progressive)[1].tobytes()
    folder = make_records(2, 4, samples=[(label, jpeg) for label in (0, 0, 1, 1)])
    found = open_records(folder, tmp_path)
    ops.use(operators)
    assert choose(found) == chosen
    # Horovod: one rank without the compiled decoder decides for all.
    for other in ([False, 0], [True, 64]):
        name, _ = choose(found, lambda rows, other=other: np.concatenate([rows, [other]]))
        assert name == "cpu"


def test_a_rank_with_an_error_reaches_the_gather_without_a_gpu(records, monkeypatch):
    ops.use("native")
    monkeypatch.setattr(autotune, "fallback_count", lambda *_: 1 / 0)
    gathered: list[np.ndarray] = []
    with pytest.raises(ZeroDivisionError):
        choose(records, lambda rows: gathered.append(rows) or rows)
    assert len(gathered) == 1


class Ranks:
    """Ranks as threads with a blocking ``gather``."""

    def __init__(self, size: int):
        self._barrier = threading.Barrier(size, timeout=JOIN_SECONDS)
        self._rows = [np.zeros(0)] * size
        self.results: list = [None] * size

    def run(self) -> list:
        def work(rank: int) -> None:
            try:
                gather = lambda rows: self._gather(rank, rows)  # noqa: E731
                self.results[rank] = choose(None, gather, mx.gpu(rank))
            except Exception as error:
                self.results[rank] = error

        threads = [threading.Thread(target=work, args=[r]) for r in range(len(self.results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        return self.results

    def _gather(self, rank: int, rows: np.ndarray) -> np.ndarray:
        self._rows[rank] = rows
        self._barrier.wait()
        gathered = np.concatenate(self._rows)
        self._barrier.wait()
        return gathered


@pytest.fixture
def fake_rates(monkeypatch):
    """Return ``fake_rates(rates)`` -> list of measured paths; rates[path][rank] may be an error."""

    def fake(rates):
        measured: list[str] = []

        def sample(records, path, *, batch_size, threads, ctx, augmentation):
            assert (batch_size, threads) == (8, 1)
            return path, ctx.device_id

        def timed(batches, batch_size, seconds, ready):
            path, rank = batches
            assert (batch_size, seconds) == (8, 0.5)
            ready()
            measured.append(path)
            rate = rates[path][rank]
            if isinstance(rate, Exception):
                raise rate
            return rate

        monkeypatch.setattr(autotune, "sample_batches", sample)
        monkeypatch.setattr(autotune, "measure", timed)
        return measured

    return fake


def test_all_ranks_choose_the_same_mode(fake_rates):
    rates = {
        "cpu": [9_800.0, 9_790, 10_400],
        "native": [19_800.0, 19_790, 20_400],
        "mixed": [41_000, 41_030, 52_000],
        "mixed_cuda": [99_000, 99_000, 0.0],
        "mixed_hardware": [70_000, 61_234, 65_000],
        "mixed_gpu_huffman": [0.0, 0.0, 0.0],
    }
    measured = fake_rates(rates)
    results = Ranks(3).run()
    sentence = (
        "decode: mixed_hardware, 61,200 images/s on the slowest of 3 ranks (other modes: "
        "cpu 9,800, native 19,800, mixed 41,000, mixed_cuda 0, mixed_gpu_huffman 0)"
    )
    assert results == [("mixed_hardware", sentence)] * 3
    assert measured == [path for path in PATHS for _ in range(3)]  # all ranks time a mode at once


def test_the_sentence_of_a_single_rank_says_here(fake_rates):
    fake_rates({path: [100.0] for path in PATHS})
    ((name, sentence),) = Ranks(1).run()
    assert name == "cpu" and sentence.startswith(
        "decode: cpu, 100 images/s on this rank (other modes: native 100, "
    )


def test_a_rank_with_an_error_reaches_every_gather(fake_rates):
    fake_rates({path: [100.0, 100.0] for path in PATHS} | {"mixed": [OSError("disk"), 100.0]})
    first, second = Ranks(2).run()
    assert str(first) == "disk" and second[0] == "cpu"


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL], ids=["mirror", "all"])
@pytest.mark.parametrize("path", ["cpu", "native"])
def test_a_rate_is_measured_on_the_cpu(records, augmentation, path):
    ops.use("native")
    readies: list[int] = []
    batches = batches_of(records, path, augmentation)
    assert measure(batches, 48, 0.05, lambda: readies.append(1)) > 0
    assert readies == [1]
    assert next(batches, None) is None  # closed


def test_the_timed_decoder_is_the_decoder_of_the_run(records, monkeypatch):
    ops.use("native")
    closed: list[NativeDecoder] = []
    monkeypatch.setattr(NativeDecoder, "close", lambda self: closed.append(self))
    batches = batches_of(records, "native", batch_size=16)
    first = [next(batches).asnumpy() for _ in range(33)]
    batches.close()
    assert len(closed) == 1
    assert all(image.shape == (16, 3, 112, 112) for image in first)
    assert (first[32] == first[0]).all() and (
        first[1] != first[0]
    ).any()  # the sample repeats after 512 images
    rows = sample_rows(records, 512)
    assert (rows == np.sort(rows)).all() and (rows == sample_rows(records, 512)).all()


@pytest.mark.parametrize("error", [RuntimeError("no CUDA device"), GraphError("GPU 0 could not")])
def test_a_mode_that_fails_has_rate_0(records, monkeypatch, error):
    def fail(*_, **__):
        raise error

    readies: list[int] = []
    monkeypatch.setattr(autotune, "make_decoder", fail)
    assert measure(batches_of(records, "mixed"), 8, 0.05, lambda: readies.append(1)) == 0.0
    assert readies == [1]


def test_without_compiled_functions_native_has_rate_0(records):
    ops.use("plain")
    assert measure(batches_of(records, "native"), 48, 0.05) == 0.0


def test_a_batch_larger_than_the_set_can_be_timed(make_records, tmp_path):
    few = open_records(make_records(2, 2), tmp_path)
    batches = batches_of(few, "cpu", batch_size=48)
    image = next(batches)
    batches.close()
    assert image.shape == (48, 3, 112, 112)


def test_a_damaged_image_of_the_sample_is_named(make_records, make_face, tmp_path):
    images = [(number, make_face(number, 0)) for number in range(4)]
    images[2] = (2, images[2][1].replace(b"\xff\xdb", b"\xff\xfe"))
    broken = open_records(make_records(4, 1, samples=images), tmp_path)
    with pytest.raises(RecordError, match=rf"key {broken.keys[2]} cannot be decoded; "):
        measure(batches_of(broken, "cpu", batch_size=8), 8, 0.05)

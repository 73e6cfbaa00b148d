# SPDX-License-Identifier: Apache-2.0
"""Which decode mode is chosen."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

import ops
from pipeline.decode import autotune
from pipeline.decode.autotune import choose_path, fastest_path, measure
from pipeline.decode.dali import PATHS
from pipeline.records.open import open_records
from pipeline.sampling.augmentation import Augmentation

ALL = Augmentation(color_jitter=0.1, jpeg_quality=(2, 20), cut_out=9, shift=3, grey=0.1)
JOIN_SECONDS = 120


@pytest.fixture(scope="module")
def records(tiny_records, tmp_path_factory):
    return open_records(tiny_records, tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize(
    ("rates_of_ranks", "name"),
    [
        ([[9, 5, 7]], "a"),
        ([[9, 5, 7], [1, 5, 4]], "b"),  # a step waits for the slowest rank
        ([[0, 5, 9], [9, 5, 0]], "b"),  # that some rank cannot take
        ([[3, 4, 4]], "b"),
        ([[0, 0, 0.1]], "c"),
    ],
)
def test_the_path_whose_slowest_rank_is_fastest(rates_of_ranks, name):
    assert choose_path(np.array(rates_of_ranks), "abc") == name


@pytest.mark.parametrize("rates_of_ranks", [[[0, 0]], [[5, 0], [0, 5]]])
def test_no_path_that_every_rank_can_take(rates_of_ranks):
    with pytest.raises(
        ValueError, match=r"^data\.decode: .* got 0 images/s for each of a, b; with"
    ):
        choose_path(np.array(rates_of_ranks), "ab")


@pytest.mark.parametrize(
    ("compiled", "kind", "told"),
    [
        (True, "baseline", ("native", "decode: native")),
        (False, "baseline", ("cpu", "decode: cpu, no compiled functions")),
        (
            True,
            "progressive",
            ("cpu", "decode: cpu, 64 of 64 pictures are none for the compiled decoder"),
        ),
    ],
)
def test_without_a_gpu_nothing_is_measured(make_records, tmp_path, compiled, kind, told):
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(kind == "progressive")]
    picture = cv2.imencode(".jpg", np.full((112, 112, 3), 99, np.uint8), progressive)[1].tobytes()
    folder = make_records(2, 4, pictures=[(label, picture) for label in (0, 0, 1, 1)])
    found = open_records(folder, tmp_path)
    ops.use("native")
    feed = ops.loader_kernels() if compiled else None
    assert fastest_path(found, 8, 1, None, Augmentation(), lambda r: r, feed=feed) == told
    # Horovod: one rank that cannot is enough.
    for other in ([False, 0], [True, 64]):
        everybody = lambda rows, other=other: np.concatenate([rows, [other]])  # noqa: E731
        name, _ = fastest_path(found, 8, 1, None, Augmentation(), everybody, feed=feed)
        assert name == "cpu"


def test_a_fault_without_a_gpu_leaves_no_other_waiting(records, monkeypatch):
    ops.use("native")
    monkeypatch.setattr(autotune, "_left", lambda *_: 1 / 0)
    gathered: list[np.ndarray] = []
    with pytest.raises(ZeroDivisionError):
        fastest_path(
            *(records, 8, 1, None, Augmentation(), lambda rows: gathered.append(rows) or rows),
            feed=ops.loader_kernels(),
        )
    assert len(gathered) == 1


class Ranks:
    """Ranks as threads, whose ``gather`` waits for all."""

    def __init__(self, size: int):
        self._barrier = threading.Barrier(size, timeout=JOIN_SECONDS)
        self._rows = [np.zeros(0)] * size
        self.results: list = [None] * size

    def run(self) -> list:
        def work(rank: int) -> None:
            try:
                self.results[rank] = fastest_path(
                    None, 8, 1, rank, Augmentation(), lambda rows: self._gather(rank, rows), 0.5
                )
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
        whole = np.concatenate(self._rows)
        self._barrier.wait()
        return whole


def fake_measure(rates, under_way=None):
    """Return a ``measure`` by tables: rates[path][rank], or what it raises."""

    def fake(records, path, batch_size, threads, device_id, augmentation, seconds, ready, feed):
        assert (batch_size, threads, seconds) == (8, 1, 0.5)
        ready()
        if under_way is not None:
            under_way.append(path)
        rate = rates[path][device_id]
        if isinstance(rate, Exception):
            raise rate
        return rate

    return fake


def test_all_ranks_take_the_same_path(monkeypatch):
    rates = {
        "cpu": [9_800.0, 9_790, 10_400],
        "native": [19_800.0, 19_790, 20_400],
        "mixed": [41_000, 41_030, 52_000],
        "mixed_cuda": [99_000, 99_000, 0.0],
        "mixed_hardware": [70_000, 61_234, 65_000],
        "mixed_gpu_huffman": [0.0, 0.0, 0.0],
    }
    under_way: list[str] = []
    monkeypatch.setattr(autotune, "measure", fake_measure(rates, under_way))
    results = Ranks(3).run()
    sentence = (
        "decode: mixed_hardware, 61,200 images/s on the slowest of 3 ranks (cpu 9,800, "
        "native 19,800, mixed 41,000, mixed_cuda 0, mixed_gpu_huffman 0)"
    )
    assert results == [("mixed_hardware", sentence)] * 3
    assert under_way == [path for path in PATHS for _ in range(3)]  # each on all at once


def test_one_rank_says_here(monkeypatch):
    monkeypatch.setattr(autotune, "measure", fake_measure({path: [100.0] for path in PATHS}))
    ((name, sentence),) = Ranks(1).run()
    assert name == "cpu" and sentence.startswith("decode: cpu, 100 images/s here (native 100, ")


def test_a_fault_of_one_rank_leaves_no_other_waiting(monkeypatch):
    rates = {path: [100.0, 100.0] for path in PATHS} | {"mixed": [OSError("disk"), 100.0]}
    monkeypatch.setattr(autotune, "measure", fake_measure(rates))
    first, second = Ranks(2).run()
    assert str(first) == "disk" and second[0] == "cpu"


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL], ids=["mirror", "all"])
@pytest.mark.parametrize("path", ["cpu", "native"])
def test_a_rate_is_measured_on_the_cpu(records, augmentation, path):
    ops.use("native")
    readies: list[int] = []
    rate = measure(
        *(records, path, 48, 1, None, augmentation, 0.05, lambda: readies.append(1)),
        feed=ops.loader_kernels(),
    )
    assert rate > 0 and readies == [1]


def test_without_compiled_functions_their_decoder_has_no_rate(records):
    assert measure(records, "native", 8, 1, None, Augmentation(), 0.05) == 0.0


def test_what_cannot_be_decoded_has_no_rate(records, monkeypatch):
    class Failing:
        def __init__(self, *arguments):
            raise RuntimeError("no CUDA device")

    readies: list[int] = []
    monkeypatch.setattr(autotune, "DecodeGraph", Failing)
    assert measure(records, "mixed", 8, 1, 0, ALL, 0.05, lambda: readies.append(1)) == 0.0
    assert readies == [1]

# SPDX-License-Identifier: Apache-2.0
"""Feed rates and training on loaders: rows, searches and complete runs of both scripts."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from benchmarks.feed_rate import MAX_FEED_RATIO, FeedResult, group
from benchmarks.harness import worker
from benchmarks.harness.feed_search import Trial
from benchmarks.harness.process import CORES, Candidate, Process
from benchmarks.harness.record_set import prepared_set
from benchmarks.step_throughput import FedResult
from benchmarks.step_throughput import group as fed_group
from benchmarks.steps.fed_steps import SEED
from benchmarks.steps.loaders_baselines import cv2_data_loader
from pipeline import build_loader
from pipeline.records.open import open_records
from tests.benchmarks.test_steps import names, run

BATCH_S = 0.02


class Clock:
    """Clock that ``sleep`` and the steps advance."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def test_steps_are_followed_by_sleep_until_their_time_limit(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)

    def step(update) -> float:
        clock.now += 0.25
        return 1.0

    work = worker.Work(step, 0, 0, {})
    assert worker.repeat(work, 2) == [(0.25, None, 1.0)] * 2
    assert clock.slept == []
    assert worker.repeat(work, 3, interval=2.0) == [(0.25, None, 1.0)] * 3
    assert clock.slept == [2.0] * 3 and clock.now == 7.25
    assert len(worker.repeat(work, 5, interval=1.0, most_s=0.5)) == 3
    assert clock.slept == [2.0] * 3 + [1.0] * 2


def test_the_elapsed_time_of_a_worker_includes_the_sleep():
    with Process(Candidate("ours", "tests.benchmarks.echo_steps", {})) as process:
        answer = process.ask(steps=3, interval=0.01)
        assert len(answer["seconds"]) == 3 and answer["elapsed"] >= sum(answer["seconds"]) + 0.03
        assert len(process.ask(steps=3, interval=0.01, most_s=0.0)["seconds"]) == 1


def test_a_row_compares_the_two_rates_of_each_round():
    result = FeedResult(Candidate("ours", "", {}, images=8), without_program(), load=2)
    for own, batch_s in ((0.010, 0.020), (0.020, 0.025), (0.030, 0.030)):
        result.own.append(own)
        result.seconds.append(batch_s)
        result.best.append(Trial(0.9 * batch_s, 0.02, 1.0, 1))
    row = result.row(result)
    assert row["images_per_second"] == pytest.approx(8 / 0.025)
    assert row["own_images_per_second"] == pytest.approx(8 / 0.020)
    assert row["of_own"] == pytest.approx(0.8)
    assert row["of_own_spread"] == pytest.approx([0.65, 0.9])
    assert (row["times_ours"], row["waiting"], row["load"]) == (1, 0.02, 2)
    assert row["noise"] is False and "note" not in row


def test_a_feed_rate_above_the_own_rate_is_marked_as_noise():
    result = FeedResult(Candidate("ours", "", {}, images=8), without_program())
    result.own, result.seconds = [0.0104], [0.010]
    result.best = [Trial(0.0098, 0.02, 1.0, 1)]
    row = result.row()
    assert row["of_own"] > MAX_FEED_RATIO and row["noise"] is True
    assert row["note"] == "noise: the feed rate is 4% above the loader's own rate"


class Device:
    """Process of a loader with a simulated speed; it answers as benchmarks/harness/worker.py."""

    def __init__(self, batch_s):
        self.batch_s, self.asked, self.hello = batch_s, [], {"parameters": 0}

    def ask(self, steps, untimed=0, interval=0.0, most_s=0.0):
        self.asked.append(interval)
        batch_s = self.batch_s(len(self.asked))
        waits = [max(0.0, batch_s - interval)] * steps
        elapsed = sum(waits) + steps * interval
        return {"seconds": waits, "elapsed": elapsed, "peak_mib": 1.0, "extra_mib": 0.0}


def test_the_own_rate_is_measured_between_trials():
    device = Device(lambda number: BATCH_S)
    result = FeedResult(Candidate("ours", "", {}, images=8), device)
    result.first_turn()
    result.later_turn()
    assert result.rounds == len(result.own) == len(result.best) == 2
    trials = [interval > 0 for interval in device.asked]
    assert not any(a and b for a, b in pairwise(trials))  # never two trials in a row
    assert result.row()["of_own"] == pytest.approx(1, rel=0.05)


def test_a_change_of_speed_between_rounds_changes_no_ratio():
    device = Device(lambda number: BATCH_S if number < 20 else 2 * BATCH_S)
    result = FeedResult(Candidate("ours", "", {}, images=8), device)
    result.first_turn()
    device.batch_s = lambda number: 2 * BATCH_S
    result.later_turn()
    assert result.seconds[1] == pytest.approx(2 * result.seconds[0], rel=0.05)
    assert result.row()["of_own_spread"] == pytest.approx([1, 1], rel=0.05)


def test_training_on_a_loader_has_no_untimed_steps():
    asked = []

    class Waits(Device):
        def ask(self, **request):
            asked.append(request)
            return {**super().ask(steps=1), "value": 0.0, "seconds_without_update": [], "waited": 1}

    result = FedResult(Candidate("ours", "", {}, images=8), Waits(lambda number: BATCH_S))
    result.first_turn()
    result.later_turn()
    assert [request["untimed"] for request in asked] == [0, 0]  # their waits would count


def test_training_rows_have_the_ratio_to_the_fixed_batch():
    fixed, fed = (
        FedResult(Candidate(loader, "", {"loader": loader}, images=8), without_program())
        for loader in ("synthetic", "cpu")
    )
    fixed.seconds, fixed.waits = [0.1], [0.0]
    fed.seconds, fed.waits = [0.4, 0.5, 0.6], [0.1, 0.3, 0.2]
    row = fed.row(fixed)
    assert row["of_synthetic"] == pytest.approx(0.2) and row["waiting"] == 0.2
    assert "of_synthetic" not in fixed.row(fed)


def without_program() -> Process:
    process = object.__new__(Process)
    process.hello = {"parameters": 0}
    return process


def test_loaders_with_prefetch_have_a_row(tmp_path):
    found = [candidate.name for candidate in group(tmp_path, tmp_path / "images.rec", 4)]
    assert found[0] == "ours random-access"
    expected = ["ours window", "ours decoded-cache", f"imagerecorditer threads={CORES}"]
    expected += [
        f"imagerecorditer threads=1 parts={CORES}",
        f"gluon dataloader cv2 workers={CORES}",
    ]
    assert {*expected, f"torch dataloader cv2 workers={CORES}"} <= set(found)
    assert not [name for name in found if name.endswith("workers=0")]  # a loader without prefetch
    quick = [
        candidate.name for candidate in group(tmp_path, tmp_path / "images.rec", 4, quick=True)
    ]
    assert quick[0] == "ours random-access" and set(quick) < set(found)
    assert not [n for n in found if n.startswith(("limit", "synthetic", "gluon dataloader tr"))]


# feed_rate.py with a search of one trial, because the outcome of a search on a busy machine is
# random.  tests/benchmarks/harness/test_feed_search.py tests the search.
ONE_TRIAL = """
import sys
from benchmarks import feed_rate
feed_rate.search = lambda trial, guess, precision, out_of_time: trial(guess)
sys.exit(feed_rate.main())
"""


def test_a_run_on_a_small_set_gives_feed_rates(tiny_records, tmp_path):
    words = ["--records", tiny_records, "--batch", 4, "--trial-s", 0.02]
    script, path = tmp_path / "one_trial.py", tmp_path / "rows.json"
    script.write_text(ONE_TRIAL)
    rows, out = run(script, path, *words, "--only", "random-access$")
    assert names(rows) == ["ours random-access"]
    (row,) = rows
    assert 0 <= row["waiting"] <= 1 and row["load"] == row["rounds"] == row["trials"] == 1
    share = row["images_per_second"] / row["own_images_per_second"]
    assert row["of_own"] == pytest.approx(share) and row["times_ours"] == 1
    assert "speed-up of ours" in out and "own rate" in out


def test_a_run_on_a_small_set_trains_with_each_loader(tiny_records, tmp_path):
    words = ["--records", tiny_records, "--batch", 4, "--nets", "mobilefacenet-0.0625"]
    words += ["--only", f"random-access|workers={CORES}"]
    rows, _ = run("step_throughput", tmp_path / "rows.json", *words)
    kinds = ["ours random-access", f"ours cpu loader workers={CORES}"]
    kinds.append(f"gluon dataloader cv2 workers={CORES}")
    assert names(rows) == [f"{kind} mobilefacenet-0.0625 B=4" for kind in kinds]
    assert all(0 <= row["waiting"] <= 1 for row in rows)
    # The weights and images are equal; the decoders differ by rounding.
    ours, plain, _ = (row["value"] for row in rows)
    assert ours == pytest.approx(plain, rel=1e-3)


def test_loaders_with_equal_losses_have_the_same_order(tiny_records, tmp_path):
    np.random.seed(0)  # the seed of the Gluon DataLoader
    with prepared_set(tiny_records, 4) as (folder, image_rec, batch):
        opened = open_records(folder, tmp_path)
        gluon = [label.asnumpy() for _, label in islice(cv2_data_loader(image_rec, batch, 0), 10)]
        orders = {"gluon": np.concatenate(gluon)}
        for loader in ("dali", "cpu"):
            batches = build_loader(loader, opened, batch, seed=SEED, workers=0)
            orders[loader] = np.concatenate([b.label.asnumpy() for b in islice(batches, 10)])
            batches.close()
        candidates = fed_group(folder, image_rec, "mobilefacenet-0.0625", batch)
    assert (orders["dali"] == orders["cpu"]).all()
    assert (orders["gluon"] != orders["dali"]).any()
    same = {candidate.settings["loader"] for candidate in candidates if candidate.same_value}
    assert same == {"dali", "cpu"}

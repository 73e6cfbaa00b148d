# SPDX-License-Identifier: Apache-2.0
"""Progress bar of a launcher."""

from __future__ import annotations

import io
import time

import pytest

from launch.launchers import progress
from launch.launchers.progress import ProgressBar
from training.log import progress_line

RUN = "run runs/demo-001  ranks 2  device cpu(0)  threads 1"


def step_line(step: int, total: int = 40, rate: float = 99.6, eta_s: int = 90) -> str:
    values = {"step": step, "epoch": 0, "loss": 2.5, "cosine": 0.25, "lr": 0.1, "eta_s": eta_s}
    values |= {"images_per_second": rate, "data_wait_fraction": 0.25, "training_accuracy": 0.5}
    return progress_line(values, total)


@pytest.fixture
def bar():
    """Return a bar on a stream in memory that never redraws on its own."""
    stream = io.StringIO()
    made = ProgressBar(stream)
    yield made, stream
    made.close()


def last_state(stream) -> str:
    """Return the text of the bar as it was drawn last."""
    return stream.getvalue().split("\r")[-1].strip()


def test_the_bar_names_the_state_of_the_run(bar):
    made, stream = bar
    states = [last_state(stream)]
    lines = [RUN, "resumed at step 20, epoch 1, after 8 images of this epoch", step_line(30)]
    lines += ["verifying the net of step 40", "verify tiny: accuracy 0.9", "finished: step 40"]
    for line in lines:
        made.write_line(line)
        states.append(last_state(stream))
    words = [state.replace(",", " ").split()[0] for state in states]
    assert words == [
        *("opening", "starting", "starting", "training", "verifying", "verifying", "finished"),
    ]


def test_rate_and_remaining_time_are_those_of_the_last_line_after_a_resume(bar):
    made, stream = bar
    made.write_line(RUN)
    made.write_line("resumed at step 30000, epoch 1, after 8 images of this epoch")
    made.write_line(step_line(30020, 40000, rate=812.0, eta_s=3725))
    shown = last_state(stream)
    assert "30020/40000 steps" in shown
    assert "loss 2.5000, 812.0 images/s, data wait 25.0 %, ETA 1:02:05" in shown
    assert "step/s" not in shown and "it/s" not in shown


def test_no_line_of_the_ranks_is_hidden(bar):
    made, stream = bar
    lines = [RUN, step_line(10), step_line(20), "verify tiny: accuracy 0.9", "finished: step 40"]
    for line in lines:
        made.write_line(line)
    printed = [part.strip() for part in stream.getvalue().replace("\r", "\n").split("\n")]
    assert [line for line in printed if line in lines] == lines


def test_the_bar_is_redrawn_while_no_line_arrives(monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_INTERVAL_S", 0.01)
    stream = io.StringIO()
    made = ProgressBar(stream)
    deadline = time.monotonic() + 120
    while stream.getvalue().count("opening") < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    made.close()
    assert stream.getvalue().count("opening") >= 3

# SPDX-License-Identifier: Apache-2.0
"""Progress bar of a launcher."""

from __future__ import annotations

import io
import time

from launch.launchers.progress import ProgressBar


def test_the_bar_shows_the_metrics(tmp_path):
    metrics = tmp_path / "runs" / "demo-001" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    stream = io.StringIO()
    bar = ProgressBar(stream, tmp_path)
    bar.write_line("step 1/40  before the bar exists")
    bar.write_line("run runs/demo-001  ranks 2  device cpu(0)  threads 1")
    bar.write_line("step 10/40  epoch 0  loss 3.0000")
    bar.write_line("verify tiny: accuracy 0.9")
    metrics.write_text(
        '{"step": 10, "loss": 3.0, "images_per_second": 99.6, "data_wait_fraction": 0.25}\n'
        '{"step": 20, "loss": 2.5, "images_per_second": 99.6, "data_wait_fraction": 0.25}\n'
    )
    deadline = time.monotonic() + 120
    while "images/s" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.05)
    bar.close()
    text = stream.getvalue()
    assert "step 1/40  before the bar exists" in text and "verify tiny: accuracy 0.9" in text
    assert "step 10/40" not in text
    assert "20/40" in text and "loss 2.500, 100 images/s, data wait 25 %" in text

# SPDX-License-Identifier: Apache-2.0
"""Progress of commands on a terminal and in a log file."""

from __future__ import annotations

import io

from evaluation.commands.progress import SECONDS_PER_LINE, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_file_gets_a_line_after_each_interval():
    now = 100.0
    stream = io.StringIO()
    with Progress(stream, clock=lambda: now) as progress:
        for done, seconds in ((64, 4), (128, 4), (192, 4), (256, 4), (300, SECONDS_PER_LINE)):
            now += seconds
            progress("lfw", done, 300)
    assert stream.getvalue().splitlines() == [
        "evaluation: lfw: embedded 192 of 300 images",
        "evaluation: lfw: embedded 300 of 300 images",
    ]


def test_a_terminal_shows_a_bar_for_each_set():
    stream = Terminal()
    with Progress(stream) as progress:
        progress("one", 5, 10)
        progress("one", 10, 10)
        progress("two", 3, 12)
    text = stream.getvalue()
    assert "one:  50%" in text and "5/10" in text and "two:  25%" in text and "3/12" in text
    assert text.count("one:   0%") == 1
    assert text.endswith("\r")  # the bar is removed

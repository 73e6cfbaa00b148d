# SPDX-License-Identifier: Apache-2.0
"""Progress of commands: a bar on a terminal, else one line per minute."""

from __future__ import annotations

from tools.data.progress import Progress


def test_without_a_terminal_progress_is_one_line_per_minute(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress()
    for done in (1000, 2000, 3000):
        progress("read", done, 3000)
    progress.clear()
    assert capsys.readouterr().err == "read 2,000 of 3,000 images\n"


def test_on_a_terminal_progress_is_a_bar_that_disappears(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress()
    progress("packed", 500, 2000)
    progress("packed", 2000, 2000)
    progress("written", 1, 2)
    progress.clear()
    text = capsys.readouterr().err
    assert "packed" in text and "500/2000" in text and "written" in text
    assert text.rstrip(" ").endswith("\r")

# SPDX-License-Identifier: Apache-2.0
"""URLs in data.records: replaced by local copies, up to a complete training run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from assemble.remote_records import HEAD_START_S, local_records

ROOT = Path(__file__).resolve().parents[2]


def test_urls_become_paths_of_copies_and_paths_stay(tiny_records, tmp_path, capsys):
    given = ["relative/set", f"file://{tiny_records}"]
    paths, notices = local_records(given, str(tmp_path / "cache"), local_rank=0)
    assert paths[0] == "relative/set" and notices == []
    assert Path(paths[1]).read_bytes() == (tiny_records / "train.rec").read_bytes()
    assert Path(paths[1]).is_relative_to(tmp_path / "cache")
    assert capsys.readouterr().out.startswith(f"copying file://{tiny_records} to {tmp_path}/cache")


def test_other_ranks_of_a_host_wait_for_local_rank_0_and_say_nothing(
    tiny_records, tmp_path, monkeypatch, capsys
):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    local_records([str(tiny_records)], str(tmp_path), local_rank=1)
    assert waits == []
    url = f"file://{tiny_records}"
    first = local_records([url], str(tmp_path), local_rank=0)
    capsys.readouterr()
    assert local_records([url], str(tmp_path), local_rank=1) == first
    assert waits == [HEAD_START_S] and capsys.readouterr().out == ""


def test_a_run_trains_on_a_remote_set_and_keeps_its_url(tiny_records, tmp_path):
    command = [
        *(sys.executable, "run_train.py", "--cfg", "demo.yaml", f"run.dir={tmp_path / 'runs'}"),
        *(f"data.records=file://{tiny_records}", f"data.remote_cache={tmp_path / 'cache'}"),
        *("net.width=0.125", "net.embedding_size=8", "data.batch_size=8", "train.max_steps=2"),
        *("eval.sets=[]", "run.operators=plain", "run.name=far"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"copying file://{tiny_records} to {tmp_path}/cache" in done.stdout
    (run,) = (tmp_path / "runs").glob("far-*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["steps"] == 2
    assert f"file://{tiny_records}" in (run / "config.yaml").read_text()
    assert len([*(tmp_path / "cache").rglob("train.rec")]) == 1

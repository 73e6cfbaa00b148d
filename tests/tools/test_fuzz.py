# SPDX-License-Identifier: Apache-2.0
"""The fuzzer: its cases can be repeated, and every kind of failure is a finding."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import fuzz
from tools.fuzzing import worker
from tools.fuzzing.mutation import MAX_BYTES, mutate
from tools.fuzzing.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]


class Planted:
    """Target whose case 3 fails as asked."""

    refusals, has_address_limit, messages_state_value = (KeyError,), True, True
    start_bytes = 1 << 62

    def __init__(self, failure):
        self.failure, self.done = failure, 0

    def case(self, rng):
        self.done += 1
        if self.done == 4:
            raise self.failure
        if self.done == 2:
            raise KeyError("a.rec: is damaged, got 3; copy it again")


def run(tmp_path, target, cases=10):
    worker.run(target, "planted", 1, range(cases), 60.0, tmp_path)
    return json.loads((tmp_path / worker.REPORT_FILE).read_text())


def test_the_same_seed_gives_the_same_changes():
    data = bytes(range(256)) * 3
    for number in range(200):
        one, two = (
            mutate(worker.case_random(5, "bin", number), data, (b"token",)) for _ in range(2)
        )
        assert one == two and len(one) <= MAX_BYTES
    changed = {mutate(worker.case_random(5, "bin", n), data) for n in range(200)}
    assert len(changed) > 150
    assert mutate(random.Random(0), b"") is not None


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (TypeError("not a list"), "TypeError: not a list"),
        (MemoryError("too much"), "MemoryError: too much"),
        (KeyError("no value"), "the message does not have the form"),
        (KeyError("x" * 10_000), "the message has a traceback or more than"),
    ],
)
def test_another_error_or_message_is_a_finding(tmp_path, failure, words):
    report = run(tmp_path, Planted(failure))
    assert words in report["finding"] and report["next"] == 3
    assert report["counts"] == {"accepted": 2, "refused": 1}
    assert int.from_bytes((tmp_path / worker.NUMBER_FILE).read_bytes(), "little") == 3


def test_too_much_memory_is_a_finding(tmp_path):
    target = Planted(KeyError("a, got b; c"))
    target.start_bytes = -worker.MEMORY_LIMIT_BYTES
    finding = run(tmp_path, target)["finding"]
    assert re.fullmatch(r"the process needs \d+ MiB of memory, more than its limit", finding)


def test_a_process_without_report_is_a_finding(monkeypatch):
    monkeypatch.setattr(fuzz.sys, "executable", "/bin/false")
    result = fuzz.run_worker("yaml", 1, range(7, 8), 1.0, {})
    assert result.next_case == 7 and "the process ended with code 1" in result.finding


def test_cases_of_a_target_run_and_can_be_repeated(tmp_path, capsys):
    assert fuzz.main(["--target", "index", "--minutes", "0.01", "--seed", "4"]) == 0
    output = capsys.readouterr().out
    found = re.search(r"^(\d+) cases in \d+ s$", output, re.MULTILINE)
    assert found and int(found[1]) > 0 and output.startswith("index ")
    assert fuzz.main(["--target", "index", "--seed", "4", "--case", "0"]) == 0
    assert re.fullmatch(r"index, case 0: (accepted|refused)\n", capsys.readouterr().out)


def test_the_command_names_all_targets():
    done = subprocess.run(
        [sys.executable, "tools/fuzz.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and all(target in done.stdout for target in TARGETS)

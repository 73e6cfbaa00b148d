# SPDX-License-Identifier: Apache-2.0
"""Run cases of one fuzzing target, for `tools.fuzz`.

    python -m tools.fuzzing.worker TARGET SEED FIRST COUNT SECONDS FOLDER

The process runs at most COUNT cases, with the numbers FIRST, FIRST + 1 and so on, and starts no
case after SECONDS seconds.  FOLDER receives the files of the cases and the report.
The process ends at the first finding, which is a case that fails in an unexpected manner.
``tools.fuzz`` starts the process and reads its report.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import resource
import struct
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tools.fuzzing.targets import TARGETS

CASE_LIMIT_S = 20
MEMORY_LIMIT_BYTES = 2 << 30
MAX_MESSAGE_CHARACTERS = 6000
NUMBER_FILE, REPORT_FILE = "case", "report.json"


def case_random(seed: int, target: str, number: int) -> random.Random:
    """Return the random generator of one case."""
    return random.Random(f"{seed}/{target}/{number}")


def run_case(target: Any, rng: random.Random) -> str:
    """Run one case; return "accepted", "refused" or a description of a finding.

    A refusal is an error of a type in ``target.refusals``.  If ``target.messages_state_value`` is
    true, its message must have the form "<what>, got <value>; <what to do>".
    """
    try:
        target.case(rng)
    except target.refusals as error:
        text = str(error)
        if len(text) > MAX_MESSAGE_CHARACTERS or "Traceback" in text:
            return (
                f"the message has a traceback or more than {MAX_MESSAGE_CHARACTERS} characters: "
                f"{text[:500]!r}"
            )
        # "NAME: unknown key" and "unknown net 'NAME'" state the value without the word "got".
        stated = (" got" in text and ";" in text) or ": unknown " in text
        if target.messages_state_value and not stated:
            return (
                "the message does not have the form '<what>, got <value>; <what to do>': "
                f"{text[:500]!r}"
            )
        return "refused"
    except Exception:
        return traceback.format_exc()
    return "accepted"


def run(target: Any, name: str, seed: int, numbers: range, seconds: float, folder: Path) -> None:
    """Run the cases ``numbers`` until a finding or the time limit; write a report to ``folder``."""
    with (folder / NUMBER_FILE).open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        current = mmap.mmap(file.fileno(), 8)
    end, counts = time.monotonic() + seconds, Counter[str]()
    finding = ""
    for number in numbers:
        if time.monotonic() > end:
            break
        current[:] = struct.pack("<q", number)
        faulthandler.dump_traceback_later(CASE_LIMIT_S, exit=True)
        result = run_case(target, case_random(seed, name, number))
        faulthandler.cancel_dump_traceback_later()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if result in ("accepted", "refused") and peak > target.start_bytes + MEMORY_LIMIT_BYTES:
            result = f"the process needs {peak >> 20} MiB of memory, more than its limit"
        if result not in ("accepted", "refused"):
            finding = result
            break
        counts[result] += 1
    done = sum(counts.values())
    report = {"counts": counts, "next": numbers.start + done, "finding": finding}
    (folder / REPORT_FILE).write_text(json.dumps(report))


def _limit_memory(target: Any) -> None:
    """Set ``target.start_bytes``, and limit the growth of the address space to MEMORY_LIMIT_BYTES.

    There is no limit if ``target.has_address_limit`` is false.
    """
    target.start_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if target.has_address_limit:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * mmap.PAGESIZE + MEMORY_LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(arguments: list[str]) -> None:
    """Run the cases that the command-line arguments select, and end the process."""
    name, seed, first, count, seconds, folder = arguments
    faulthandler.enable()
    os.chdir(folder)
    target = TARGETS[name]()
    target.prepare(Path(folder))
    _limit_memory(target)
    numbers = range(int(first), int(first) + int(count))
    run(target, name, int(seed), numbers, float(seconds), Path(folder))
    sys.stdout.flush()
    # The exit handlers of libraries may be slow or print errors; os._exit() skips them.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

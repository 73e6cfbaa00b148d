# SPDX-License-Identifier: Apache-2.0
"""GPU day with faulty steps:  injected.py OUT STEP ..."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.gpu_day.day import Day
from tools.gpu_day.setting import Setting
from tools.gpu_day.steps import Step

CHILD = """
import signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
open(sys.argv[2], "w").close()
time.sleep(600)
"""
# The child has its own session, and its parent has ended.
HANG = """
import os, subprocess, sys, time
if os.fork() == 0:
    subprocess.Popen([sys.executable, "-c", CHILD, *sys.argv[1:]], start_new_session=True)
    os._exit(0)
os.wait()
LAST
"""
RESULT = '{"what": "number", "state": "measured", "value": 7}'


def hang(kind: str, out: Path, last: str) -> list[str]:
    """Return arguments of Python that start a child, which creates the file ``out/started``."""
    program = HANG.replace("CHILD", repr(CHILD)).replace("LAST", last)
    return ["-c", program, kind, str(out / "started")]


def steps(out: Path) -> dict[str, list[str]]:
    """Return the arguments of Python for each step by its name."""
    write = "import sys; open(sys.argv[1], 'ab').write(sys.argv[2].encode('latin-1'))"
    waits = f"while not os.path.exists({str(out / 'started')!r}): time.sleep(0.01)"
    return {
        "fails": ["-c", "import sys; print('bad luck'); sys.exit(3)"],
        "hangs": hang("stubborn", out, "time.sleep(600)"),
        "waits": hang("obedient", out, "time.sleep(600)"),
        "leaves": hang("obedient", out, waits),
        "prints garbage": ["-c", "import os; os.write(1, bytes(range(256)) * 40)"],
        "writes garbage": ["-c", write, "{results}", RESULT + "\n\xff\x01{]\n"],
        "fails late": ["-c", write + "; sys.exit(5)", "{results}", RESULT + "\n"],
        "crashes": ["-c", "import os; os.abort()"],
        "is done": ["-c", write, "{results}", RESULT + "\n"],
    }


def main(out: Path, names: list[str]) -> int:
    """Run the named steps."""
    program = steps(out)
    chosen = [
        Step(
            number,
            name,
            limit_s=1 if name == "hangs" else 60,
            command=(sys.executable, *program[name]),
        )
        for number, name in enumerate(names)
    ]
    absent = Step(len(names), "is no program", command=("/no/such/program",))
    day = Day(sys.executable, out, Setting(1, out, out))
    day.run([*chosen, absent] if len(names) > 1 else chosen)
    return day.stopped_by


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

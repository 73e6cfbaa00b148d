# SPDX-License-Identifier: Apache-2.0
"""Stand-in for srun on one machine: one process per task, with Slurm's variables and messages.

It takes the nodes from the job's variables; all of them are this machine.  Its behaviour is that of
srun in Slurm 22.05.  It refuses unknown options.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

KNOWN = ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "distribution")
KNOWN += ("kill-on-bad-exit", "input", "chdir")


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in KNOWN:
        parser.add_argument(f"--{name}")
    parser.add_argument("--unbuffered", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    assert options.distribution == "block" and options.input == "none"
    counts = [int(n) for n in os.environ["FAKE_TASKS"].split(",")]
    assert int(options.ntasks) == sum(counts) and int(options.nodes) == len(counts)
    tasks = []
    for node, count in enumerate(counts):
        for local in range(count):
            variables = {
                "SLURM_PROCID": len(tasks),
                "SLURM_NODEID": node,
                "SLURM_LOCALID": local,
                "SLURM_STEP_NUM_TASKS": sum(counts),
                "SLURM_STEP_NODELIST": os.environ["SLURM_JOB_NODELIST"],
                "SLURM_STEP_TASKS_PER_NODE": os.environ["SLURM_TASKS_PER_NODE"],
            }
            environment = {**os.environ, **{k: str(v) for k, v in variables.items()}}
            tasks.append(
                (
                    f"node{node}",
                    subprocess.Popen(
                        options.command,
                        env=environment,
                        cwd=options.chdir,
                        stdin=subprocess.DEVNULL,
                    ),
                )
            )
    pids = "\n".join(str(process.pid) for _, process in tasks)
    Path(os.environ["FAKE_TASKS_FILE"]).write_text(pids + "\n")
    signal.signal(signal.SIGTERM, lambda *_: kill(tasks))  # like srun: immediately
    highest, running = 0, dict(enumerate(tasks))
    while running:
        for number, (node, process) in list(running.items()):
            status = process.poll()
            if status is None:
                continue
            del running[number]
            if status < 0:
                how, status = signal.strsignal(-status), 128 - status
            else:
                how = f"Exited with exit code {status}"
            if status:
                print(f"srun: error: {node}: task {number}: {how}", file=sys.stderr, flush=True)
                if not highest and options.kill_on_bad_exit == "1":
                    print(
                        "srun: launch/slurm: _step_signal: Terminating", file=sys.stderr, flush=True
                    )
                    kill(tasks)
            highest = max(highest, status)
        time.sleep(0.01)
    return highest


def kill(tasks: list[tuple[str, subprocess.Popen]]) -> None:
    for _, process in tasks:
        if process.poll() is None:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())

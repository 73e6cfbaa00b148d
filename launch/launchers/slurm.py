# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of a Slurm job:  python -m launch.slurm --cfg NAME.yaml [overrides]

Called once inside a job (sbatch, salloc).  srun starts one rank per task, without ssh; they find
each other through Horovod's rendezvous server, which runs here.  docs/clusters.md has a job file.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from launch.launchers.network import own_address
from launch.launchers.options import Host, Parser, UsageError, describe
from launch.launchers.rendezvous import rendezvous
from launch.launchers.slurm_job import read_job
from launch.launchers.supervise import ROOT, Reader, supervise


class SrunReader(Reader):
    """Takes the run's exit code from srun's messages; hides them where a rank has said why."""

    stderr = subprocess.PIPE

    _ended = re.compile(r"^srun: error: .*: tasks? [\d,-]+: (?:Exited with exit code (\d+)|(.+))$")
    _itself = re.compile(r"^(srun|slurmstepd)(-\S+)?: ")
    _signals = {signal.strsignal(number): 128 + number for number in signal.valid_signals()}

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job
        self._explained = False
        self._asked = False

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        if stream == "stderr":
            # The first message is the run's: the ranks that srun then ends leave with others.
            if self.code is None and (match := self._ended.match(line)):
                self.code = int(match[1]) if match[1] else self._signals.get(match[2], 1)
                self._explained = match[1] is not None
            if self._explained and self._itself.match(line):
                return None
        return line, stream

    def stop(self, process: subprocess.Popen[str]) -> None:
        if self._asked:
            process.send_signal(signal.SIGTERM)
            return
        # srun would answer SIGTERM with SIGKILL to the ranks; this reaches them as SIGTERM.
        self._asked = True
        subprocess.Popen(["scancel", "--quiet", "--signal=TERM", self._job])


def main(argv: Sequence[str]) -> int:
    """Run the ranks to their end; return their exit code."""
    parser = Parser("launch.slurm", "Start the ranks of the Slurm job that this runs in.")
    parser.add_argument("--network-interface", help="for Gloo and NCCL, such as eth0 (searched)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, start nothing")
    try:
        options, arguments = parser.split(argv)
        hosts = read_job(os.environ)
        if options.dry_run:
            # Neither a server nor a look at the network: the plan can be read anywhere.
            full = command(os.environ, hosts, arguments, "ADDRESS", 0, options.network_interface)
            print(describe(hosts, full, ROOT).replace("ADDRESS:0", "ADDRESS:PORT"))
            return 0
        address = own_address([host.name for host in hosts], options.network_interface)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    with rendezvous(hosts) as port:
        full = command(os.environ, hosts, arguments, address, port, options.network_interface)
        return supervise(full, os.environ, SrunReader(os.environ["SLURM_JOB_ID"]))


def command(
    variables: Mapping[str, str],
    hosts: Sequence[Host],
    arguments: Sequence[str],
    address: str,
    port: int,
    interface: str | None = None,
) -> list[str]:
    """Return the command line of srun.

    Parameters
    ----------
    variables
        The environment of the job.
    hosts
        Nodes and ranks of each.
    arguments
        Of run_train.py.
    address, port
        Of the rendezvous server.
    interface
        Network interface that all nodes have; None lets every rank search its own.
    """
    full = ["srun", f"--nodes={len(hosts)}", f"--ntasks={sum(host.ranks for host in hosts)}"]
    if len({host.ranks for host in hosts}) == 1:
        full.append(f"--ntasks-per-node={hosts[0].ranks}")
    if cores := variables.get("SLURM_CPUS_PER_TASK"):
        full.append(f"--cpus-per-task={cores}")  # since Slurm 22.05 srun does not inherit it
    full += [
        "--distribution=block",  # ranks numbered node by node
        "--kill-on-bad-exit=1",  # a rank alone waits for the others for ever
        "--input=none",
        "--unbuffered",
        f"--chdir={ROOT}",
        sys.executable,
        "-m",
        "launch.launchers.slurm_rank",
        "--rendezvous",
        f"{address}:{port}",
    ]
    if interface:
        full += ["--network-interface", interface]
    return [*full, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

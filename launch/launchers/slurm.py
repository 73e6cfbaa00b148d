# SPDX-License-Identifier: Apache-2.0
"""Start ranks in a Slurm job:  python -m launch.slurm --cfg NAME.yaml [overrides]

Run this command once inside a job (sbatch, salloc), without srun.  The launcher runs Horovod's
rendezvous server and starts srun, which starts one rank per task without ssh.  docs/clusters.md
shows a job file.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.launchers.caller_paths import resolve_arguments
from launch.launchers.network import find_own_address
from launch.launchers.options import (
    INTERFACE_HELP,
    Host,
    Parser,
    UsageError,
    check_configuration,
    format_plan,
    interface_name,
)
from launch.launchers.rendezvous import run_rendezvous_server
from launch.launchers.slurm_job import read_job
from launch.launchers.supervise import ROOT, TRAIN, Reader, supervise


class SrunReader(Reader):
    """Output filter for srun: hides srun's own messages after a rank has exited with an error.

    That rank has already printed the reason.
    """

    stderr = subprocess.PIPE

    _exit_message = re.compile(
        r"^srun: error: .*: tasks? [\d,-]+: (?:Exited with exit code (\d+)|(.+))$"
    )
    _own_message = re.compile(r"^(srun|slurmstepd)(-\S+)?: ")
    _signals = {signal.strsignal(number): 128 + number for number in signal.valid_signals()}

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job
        self._rank_exited = False
        self._stop_requested = False

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        if stream == "stderr":
            # Only the first exit code counts, because srun then kills the other ranks.
            if self.code is None and (match := self._exit_message.match(line)):
                self.code = int(match[1]) if match[1] else self._signals.get(match[2], 1)
                self._rank_exited = match[1] is not None
            if self._rank_exited and self._own_message.match(line):
                return None
        return line, stream

    def stop(self, process: subprocess.Popen[str]) -> None:
        if self._stop_requested:
            process.send_signal(signal.SIGTERM)
            return
        # On SIGTERM srun would kill the ranks with SIGKILL.  scancel sends SIGTERM to the ranks, so
        # that they can save a checkpoint.
        self._stop_requested = True
        subprocess.Popen(["scancel", "--quiet", "--signal=TERM", self._job])


def main(argv: Sequence[str]) -> int:
    """Start the ranks, wait until all have ended and return the exit code of the run."""
    parser = Parser("launch.slurm", "Start ranks in the current Slurm job.")
    parser.add_argument("--network-interface", type=interface_name, help=INTERFACE_HELP)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the configuration, print the nodes, ranks and command, then exit",
    )
    try:
        options, arguments = parser.split(argv)
        hosts = read_job(os.environ)
        arguments = resolve_arguments(arguments, Path.cwd(), ROOT)
        if options.dry_run:
            if code := check_configuration(TRAIN, arguments, ROOT):
                return code
            # A placeholder address: a dry run starts no server and needs no network.
            interface = options.network_interface
            command = build_command(os.environ, hosts, arguments, "ADDRESS", 0, interface)
            print(format_plan(hosts, command, ROOT).replace("ADDRESS:0", "ADDRESS:PORT"))
            return 0
        address = find_own_address([host.name for host in hosts], options.network_interface)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    with run_rendezvous_server(hosts) as port:
        interface = options.network_interface
        command = build_command(os.environ, hosts, arguments, address, port, interface)
        return supervise(command, os.environ, SrunReader(os.environ["SLURM_JOB_ID"]))


def build_command(
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
        Environment variables of the job.
    hosts
        Nodes with the number of ranks to start on each.
    arguments
        Arguments of run_train.py.
    address, port
        Address and port of the rendezvous server.
    interface
        Name of a network interface that all nodes have; None lets every rank detect the interface
        of its node.
    """
    command = ["srun", f"--nodes={len(hosts)}", f"--ntasks={sum(host.ranks for host in hosts)}"]
    if len({host.ranks for host in hosts}) == 1:
        command.append(f"--ntasks-per-node={hosts[0].ranks}")
    if cores := variables.get("SLURM_CPUS_PER_TASK"):
        # Since Slurm 22.05 srun does not inherit --cpus-per-task from the job.
        command.append(f"--cpus-per-task={cores}")
    # --distribution=block gives each node consecutive ranks.  Without --kill-on-bad-exit the other
    # ranks would wait forever for a failed rank.
    command += [
        "--distribution=block",
        "--kill-on-bad-exit=1",
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
        command += ["--network-interface", interface]
    return [*command, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

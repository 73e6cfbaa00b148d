# SPDX-License-Identifier: Apache-2.0
"""Program that becomes one rank of a Slurm job; launch.slurm starts it in each task of srun."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from launch.launchers.network import find_interface
from launch.launchers.options import Parser, UsageError
from launch.launchers.slurm_job import rank_environment
from launch.launchers.supervise import TRAIN


def main(argv: Sequence[str]) -> int:
    """Set Horovod's environment variables and replace this process by run_train.py.

    Return 2 if the command line or the environment is invalid.
    """
    parser = Parser("launch.launchers.slurm_rank", "Run one rank of a Slurm job.")
    parser.add_argument("--rendezvous", required=True, help="ADDRESS:PORT of the rendezvous server")
    parser.add_argument("--network-interface", help="network interface for Gloo and NCCL")
    try:
        options, arguments = parser.split(argv)
        address, _, port = options.rendezvous.rpartition(":")
        # Find the interface by route, because the interfaces of the nodes may have different names.
        interface = options.network_interface or find_interface(address)
        environment = rank_environment(os.environ, address, int(port), interface)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    # execve keeps the process, so the rank receives srun's signals and srun sees its exit code.
    os.execve(TRAIN[0], [*TRAIN, *arguments], {**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

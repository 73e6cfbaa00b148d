# SPDX-License-Identifier: Apache-2.0
"""One task of srun becomes one rank: launch.slurm starts this, nobody else needs to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from launch.launchers.network import interface_towards
from launch.launchers.options import Parser, UsageError
from launch.launchers.slurm_job import rank_environment
from launch.launchers.supervise import TRAIN


def main(argv: Sequence[str]) -> int:
    """Set Horovod's variables and become run_train.py; return only if that is refused."""
    parser = Parser("launch.launchers.slurm_rank", "Become one rank of a Slurm job.")
    parser.add_argument("--rendezvous", required=True, help="ADDRESS:PORT of launch.slurm")
    parser.add_argument("--network-interface", help="for Gloo and NCCL")
    try:
        options, arguments = parser.split(argv)
        address, _, port = options.rendezvous.rpartition(":")
        # By the way to the launcher, not by name: nodes may name their interfaces differently.
        interface = options.network_interface or interface_towards(address)
        environment = rank_environment(os.environ, address, int(port), interface)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    # The same process goes on, so srun's signals and exit codes are the rank's own.
    os.execve(TRAIN[0], [*TRAIN, *arguments], {**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of a training run inside a Slurm job:  python -m launch.slurm"""

import sys

from launch.launchers.slurm import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

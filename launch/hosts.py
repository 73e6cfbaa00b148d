# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of a training run on several hosts over ssh:  python -m launch.hosts"""

import sys

from launch.launchers.hosts import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

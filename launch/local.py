# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of a training run on this host:  python -m launch.local"""

import sys

from launch.launchers.local import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

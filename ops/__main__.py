# SPDX-License-Identifier: Apache-2.0
"""Command that compiles the operators and prints the path of the library:  python -m ops"""

import sys

from ops.build import BuildError, compile_library

if __name__ == "__main__":
    try:
        print(compile_library())
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(2)

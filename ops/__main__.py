# SPDX-License-Identifier: Apache-2.0
"""Compile the operators and print the path of the library.  Command: python -m ops"""

import sys

from ops.build import BuildError, compile_library

if __name__ == "__main__":
    try:
        print(compile_library())
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(2)

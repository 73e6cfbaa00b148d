# SPDX-License-Identifier: Apache-2.0
"""Train several times in the same ranks, so that they import MXNet once:  several.py FILE

FILE holds a JSON list of the argument lists of run_train.py.  Each rank prints ``START`` on both
output streams before every training and ``END`` with the exit code after it.  A training after
another one has other random names of its blocks, but the same weights and losses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import run_train
from launch.ranks.comm import connect
from tests.parallel.ranks import END, START


def main(argument_lists: list[list[str]]) -> int:
    """Call run_train.py with each of the argument lists; return 0."""
    comm = connect()
    run_train.connect = lambda: comm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(comm), "close", lambda comm: None)  # between the trainings
        for arguments in argument_lists:
            for stream in (sys.stdout, sys.stderr):
                print(START, file=stream, flush=True)
            code = run_train.main(arguments)
            print(END, code, flush=True)
            comm.gather_json("printed")
    comm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))

# SPDX-License-Identifier: Apache-2.0
"""Train several times in the same ranks, so that they import MXNet once:  several.py FILE

FILE holds a JSON list of the argument lists of run_train.py, or of ``python -m evaluation`` if the
first argument is "verify".  Each rank prints ``START`` on both
output streams before every training and ``END`` with the exit code after it.  A training after
another one has other random names of its blocks, but the same weights and losses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import run_train
from evaluation import __main__ as evaluation
from launch import ranks
from launch.ranks.comm import connect
from tests.parallel.ranks import END, START


def main(argument_lists: list[list[str]]) -> int:
    """Call the programs with each of the argument lists; return 0."""
    comm = connect()
    run_train.connect = lambda: comm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(comm), "close", lambda comm: None)  # between the trainings
        patch.setattr(ranks.comm, "connect", lambda: comm)
        for arguments in argument_lists:
            for stream in (sys.stdout, sys.stderr):
                print(START, file=stream, flush=True)
            program = evaluation if arguments[0] == "verify" else run_train
            code = program.main(arguments)
            print(END, code, flush=True)
            comm.gather_json("printed")
    comm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))

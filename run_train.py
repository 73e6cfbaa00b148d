# SPDX-License-Identifier: Apache-2.0
"""Train a face-recognition network from record files and verify it.

One rank:       python run_train.py --cfg demo.yaml
Several ranks:  horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml data.records=FOLDER

The composition root and table of contents: configuration -> inputs, run, loader, model -> loop.
assemble/ holds the chapters; with this file it alone sees the whole configuration.
"""

from __future__ import annotations

from launch.ranks.lifeline import tie_forks
from launch.ranks.malloc import keep_memory
from launch.ranks.output import attach
from launch.ranks.threads import share_cores

OUTPUT = None
if __name__ == "__main__":  # first of all: the rest takes seconds, and the launcher may end in them
    OUTPUT = attach()
    tie_forks()
THREADS = share_cores()  # before mxnet is imported, which reads OMP_NUM_THREADS
keep_memory()  # before there are threads

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from assemble.inputs import data_line, open_inputs
from assemble.loader import drop_stale_caches, make_loader, mine_triplets
from assemble.model import choose_operators, make_model, make_verify
from assemble.rules import read_config
from assemble.run import Checkpointer, open_run
from launch.environment.provenance import versions
from launch.ranks.agreement import (
    agree,
    gather_notices,
    leaving_alone,
    leaving_together,
    require_equal,
)
from launch.ranks.comm import Comm, NoConnection, connect
from training.log import RunLog
from training.loop import Cadence, Loop
from training.report import announce, reporting


def main(argv: Sequence[str]) -> int:
    """Run the command line; return 0, 1 (training failed), 2 (usage or data) or 143 (stopped)."""
    try:
        comm = connect()
    except NoConnection as error:
        return leaving_alone(error)

    def work() -> None:
        with ExitStack() as at_end:
            train(argv, comm, at_end)

    return leaving_together(comm, work)


def train(argv: Sequence[str], comm: Comm, at_end: ExitStack) -> None:
    """Compose the parts and run them; every fault is raised on all ranks alike.

    What must be closed however it ends is given to ``at_end``.
    """
    config = agree(comm, lambda: read_config(argv))
    if isinstance(config, str):  # the answer to a question such as --help
        if comm.rank == 0:
            print(config, flush=True)
        return
    inputs = agree(comm, lambda: open_inputs(config, comm))
    require_equal(comm, config.to_dict(), "configuration")
    require_equal(comm, inputs.of_all_ranks(), "data")
    drop_stale_caches(config, inputs, comm)

    run = open_run(config, inputs, comm, at_end)
    if OUTPUT and run.folder.is_dir():  # Horovod: another host may not have the folder
        OUTPUT.keep_in(run.folder)
    operators = agree(comm, lambda: choose_operators(config, inputs))
    # The loader first: its worker processes fork before MXNet has threads.
    loader, decode, loader_notices = agree(
        comm, lambda: make_loader(config, inputs, run, comm, THREADS)
    )
    at_end.callback(loader.close)
    model, model_notice = make_model(config, inputs, run, comm)

    log = agree(comm, lambda: RunLog(run.folder if comm.rank == 0 else None, run.progress.step))
    batches = mine_triplets(config, loader, model, run, comm, log.say)
    notices = [*run.notices, *gather_notices(comm, inputs.notices)]
    notices += inputs.records.notices if inputs.records else ()
    announce(
        log,
        run,
        ranks={"ranks": comm.size, "device": inputs.ctx, "threads": THREADS},
        data=data_line(config, inputs, comm.size),
        notices=[*notices, operators, *loader_notices, model_notice, comm.notice(inputs.ctx)],
    )
    loop = Loop(
        model,
        batches,
        comm,
        log,
        run,
        save=Checkpointer(config, inputs, run, model, ranks=comm.size).save,
        verify=make_verify(config, inputs, model, comm),
        cadence=Cadence(
            config.train.log_every, config.train.checkpoint_every, config.eval.every_steps
        ),
    )
    with reporting(log, loop, comm, {**versions(), "decode": decode}):
        loop.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Train a face-recognition network from record files and verify it.

One rank:       python run_train.py --cfg demo.yaml
Several ranks:  horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml data.records=FOLDER

This program builds all parts of a run: configuration -> inputs, run, loader, model -> loop.  The
functions are in assemble/; only they and this file receive the whole configuration.
"""

from __future__ import annotations

from launch.ranks.lifeline import kill_forks_at_exit
from launch.ranks.malloc import keep_memory
from launch.ranks.output import attach_companion
from launch.ranks.threads import share_cores

OUTPUT = None
if __name__ == "__main__":  # before the imports below: they take seconds, and the launcher may end
    OUTPUT = attach_companion()
    kill_forks_at_exit()
THREADS = share_cores()  # before mxnet is imported, which reads OMP_NUM_THREADS
keep_memory()  # before any thread starts

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from assemble.inputs import data_summary, open_inputs
from assemble.loader import drop_stale_caches, make_loader, mine_triplets
from assemble.model import choose_operators, make_model, make_verify
from assemble.rules import read_config
from assemble.run import Checkpointer, open_run
from launch.environment.provenance import versions
from launch.ranks.agreement import (
    agree,
    exit_alone,
    exit_together,
    gather_notices,
    require_equal,
)
from launch.ranks.comm import Comm, NoConnection, connect
from training.log import RunLog
from training.loop import Cadence, Loop
from training.report import announce, reporting


def main(argv: Sequence[str]) -> int:
    """Run a command line; return 0, 1 (training failed), 2 (usage or data) or 143 (stopped)."""
    try:
        comm = connect()
    except NoConnection as error:
        return exit_alone(error)

    def work() -> None:
        with ExitStack() as at_end:
            train(argv, comm, at_end)

    return exit_together(comm, work)


def train(argv: Sequence[str], comm: Comm, at_end: ExitStack) -> None:
    """Build all parts of a run and train; if any rank fails, all ranks raise the same error.

    ``at_end`` receives the functions that release resources; the caller always closes it.
    """
    config = agree(comm, lambda: read_config(argv))
    if isinstance(config, str):  # the text that --help or --version requests
        if comm.rank == 0:
            print(config, flush=True)
        return
    inputs = agree(comm, lambda: open_inputs(config, comm))
    require_equal(comm, config.to_dict(), "configuration")
    require_equal(comm, inputs.shared_facts(), "data")
    drop_stale_caches(config, inputs, comm)

    run = open_run(config, inputs, comm, at_end)
    if OUTPUT and run.folder.is_dir():  # Horovod: other hosts may not have it
        OUTPUT.log_to(run.folder)
    operators = agree(comm, lambda: choose_operators(config, inputs))
    # The loader first: its worker processes must fork before MXNet starts threads.
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
        data=data_summary(config, inputs, comm.size),
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

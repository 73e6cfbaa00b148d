# SPDX-License-Identifier: Apache-2.0
"""Train a face-recognition network on record files and evaluate it on verification pairs.

One rank:       python run_train.py --cfg demo.yaml
Several ranks:  horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml data.records=FOLDER

Functions in assemble/ build the parts of a run in this order: configuration, inputs, run folder,
loader, model, loop.  Only these functions and this file receive the complete configuration.
"""

from __future__ import annotations

from launch.ranks.lifeline import kill_forks_at_exit
from launch.ranks.malloc import keep_memory
from launch.ranks.output import attach_companion
from launch.ranks.threads import share_cores

OUTPUT = None
# The companion process ends this process when the launcher ends.  Start the companion before the
# imports below, which take seconds.
if __name__ == "__main__":
    OUTPUT = attach_companion()
    kill_forks_at_exit()
THREADS = share_cores()  # sets OMP_NUM_THREADS, which mxnet reads when it is imported below
keep_memory()  # configures malloc, which must happen before any thread starts

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from assemble.inputs import open_inputs
from assemble.loader import drop_stale_caches, make_loader, mine_triplets
from assemble.model import choose_operators, make_model, make_verify
from assemble.pretrained import open_pretrained
from assemble.rules import read_config
from assemble.run import Checkpointer, make_best, make_cadence, next_command, open_run
from assemble.summary import data_summary, recipe_summary
from launch.environment.provenance import versions
from launch.ranks.agreement import (
    agree,
    exit_alone,
    exit_together,
    gather_notices,
    require_equal,
)
from launch.ranks.comm import Comm, NoConnection, connect
from training.loop import Loop
from training.report import announce, open_log, reporting


def main(argv: Sequence[str]) -> int:
    """Train; return 0 (success), 1 (training failed), 2 (error in usage or data), 143 (stopped)."""
    try:
        comm = connect()
    except NoConnection as error:
        return exit_alone(error)

    def work() -> None:
        with ExitStack() as at_end:
            train(argv, comm, at_end)

    return exit_together(comm, work)


def train(argv: Sequence[str], comm: Comm, at_end: ExitStack) -> None:
    """Build all parts of a run and train; if any rank fails, all ranks raise that rank's error.

    ``at_end`` collects the functions that release resources.  The caller closes it in every case.
    """
    config = agree(comm, lambda: read_config(argv))
    if isinstance(config, str):  # `config` is the output of --help or --version
        if comm.rank == 0:
            print(config, flush=True)
        return
    config, pretrained = open_pretrained(config, comm)
    inputs = agree(comm, lambda: open_inputs(config, comm, pretrained))
    require_equal(comm, config.to_dict(), "configuration")
    require_equal(comm, inputs.shared_facts(), "data")
    drop_stale_caches(config, inputs, comm)

    run = open_run(config, inputs, comm, at_end)
    if OUTPUT and run.folder.is_dir():  # other hosts may lack rank 0's folder
        OUTPUT.log_to(run.folder)
    operators = agree(comm, lambda: choose_operators(config, inputs))
    # Make the loader before the model: its workers must fork before MXNet starts threads.
    loader, decode, notices = agree(comm, lambda: make_loader(config, inputs, run, comm, THREADS))
    at_end.callback(loader.close)
    model, model_notices = make_model(config, inputs, run, comm)

    log = agree(comm, lambda: open_log(run, comm.rank))
    batches = mine_triplets(config, loader, model, run, comm, log.say)
    notices = [*run.notices, *gather_notices(comm, inputs.notices), *notices]
    notices += inputs.records.notices if inputs.records else ()
    announce(
        log,
        run,
        ranks={"ranks": comm.size, "device": inputs.ctx, "threads": THREADS},
        data=data_summary(config, inputs, comm.size, decode),
        recipe=recipe_summary(config, inputs.sets),
        notices=[*notices, operators, *model_notices, comm.notice(inputs.ctx)],
    )
    saver = Checkpointer(config, inputs, run, model, comm=comm)
    loop = Loop(
        model,
        batches,
        comm,
        log,
        run,
        save=saver.save,
        verify=make_verify(config, inputs, model, comm),
        cadence=make_cadence(config),
        best=make_best(config, inputs, run, saver.save_best),
    )
    facts, command = {**versions(), "decode": decode}, next_command(config, run)
    with reporting(log, loop, comm, facts, next_command=command):
        loop.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

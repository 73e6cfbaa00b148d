# SPDX-License-Identifier: Apache-2.0
"""Kill a training run repeatedly and compare the losses after each resumption.

    python tests/parallel/kill_often.py --times 10 --ranks 2

The command writes records to a temporary folder.  It kills one rank or all ranks, in turn, during a
step or while a checkpoint is written.  For each kill it prints the step at which the run resumed
and the largest difference of the next 20 losses from those of an undisturbed run.  The exit code is
1 if a difference exceeds 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pipeline.records.writer import write_record_set
from tests.conftest import faces
from tests.parallel.kills import MAX_SEGMENT_STEPS, MOMENTS, Kill, kill_often
from tests.parallel.ranks import read_losses, run, training, write_cfg

TOLERANCE = 1e-5
PEOPLE, IMAGES = 12, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="number of kills (10)")
    parser.add_argument("--ranks", type=int, default=2, help="number of ranks (2)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random times (1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        kills = measure(Path(temporary), arguments.times, arguments.ranks, arguments.seed)
    show(kills, arguments.ranks)
    failed = [kill for kill in kills if not kill.difference <= TOLERANCE]
    print(f"{len(kills) - len(failed)} of {len(kills)} resumptions within {TOLERANCE:g}")
    return 1 if failed or len(kills) < arguments.times else 0


def measure(folder: Path, times: int, ranks: int, seed: int) -> list[Kill]:
    write_record_set(folder / "records", faces(PEOPLE, IMAGES), PEOPLE)
    cfg = write_cfg(
        folder,
        folder / "records",
        train={"max_steps": MAX_SEGMENT_STEPS * (times + 1), "checkpoint_every": 4},
    )
    undisturbed = folder / "runs" / "undisturbed-001"
    ended = run(ranks, training(cfg, "run.name=undisturbed"), timeout_s=60.0 * (times + 2))
    if ended.code:
        raise SystemExit(ended.everything)
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(times)]
    reference = read_losses(undisturbed)
    return kill_often(cfg, folder / "runs" / "tiny-001", ranks, moments, reference, seed)


def show(kills: list[Kill], ranks: int) -> None:
    print(f"{ranks} ranks, {kills[0].compared if kills else 0} losses compared after each kill\n")
    print("kill  moment       at step  partial checkpoint  resumed from  largest difference")
    for number, kill in enumerate(kills, 1):
        print(
            f"{number:4d}  {kill.moment:11s}  {kill.at_step:7d}  "
            f"{'yes' if kill.left_partial_checkpoint else 'no':>18s}  {kill.resumed_at:12d}  "
            f"{kill.difference:18.1e}"
        )


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Kill a training run again and again and compare the losses after every resumption.

    python tests/parallel/kill_often.py --times 10 --ranks 2

Makes its own records in a temporary folder. Kills one rank and all by turns, in the middle of a
step or while a checkpoint is written, and prints what came after each kill: the step that the run
went on from, and the largest difference of its next 20 losses to those of an undisturbed run.
Exit code 1 if one differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pipeline.records.writer import write_record_set
from tests.conftest import faces
from tests.parallel.kills import LONGEST_SEGMENT, MOMENTS, Kill, kill_often
from tests.parallel.ranks import read_losses, run, training, write_cfg

TOLERANCE = 1e-5
PEOPLE, IMAGES = 12, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="kills (10)")
    parser.add_argument("--ranks", type=int, default=2, help="ranks (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (1)")
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
        train={"max_steps": LONGEST_SEGMENT * (times + 1), "checkpoint_every": 4},
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
    print("kill  what         at step  half-written file  resumed from  largest difference")
    for number, kill in enumerate(kills, 1):
        print(
            f"{number:4d}  {kill.what:11s}  {kill.at_step:7d}  "
            f"{'yes' if kill.left_half_written else 'no':>17s}  {kill.resumed_at:12d}  "
            f"{kill.difference:18.1e}"
        )


if __name__ == "__main__":
    sys.exit(main())

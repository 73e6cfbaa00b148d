# SPDX-License-Identifier: Apache-2.0
"""Check sharded class centres at length on real ranks; the tests hold a part of the same.

    python tests/parallel/check_shards.py equal     # shards against complete centres, 1 to 4 ranks
    python tests/parallel/check_shards.py resume    # 2, 3 and 1 ranks with kills; 8 shards to 3
    python tests/parallel/check_shards.py refuse    # damaged, missing and foreign shards

Each command prints one line per result and ends with code 1 if a result is out of its bounds.  The
commands write to a temporary folder.  They take about 5, 2 and 1 minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.writer import write_record_set
from tests.conftest import faces
from tests.parallel.ranks import (
    HERE,
    Ranks,
    pause_at,
    read_losses,
    read_metrics,
    resumed_at,
    run,
    training,
    write_cfg,
)
from training.__main__ import main as change_checkpoints
from training.checkpoint import open_checkpoint

STEPS = 20
LOSS_BOUND, CENTRE_BOUND = 1e-5, 1e-4  # relative, absolute
# Horovod: Gloo adds the numbers of 3 ranks in an order that depends on the place of a tensor among
# the tensors that it sends together.  Last bits would differ, and training amplifies differences.
EXACT_SUMS = ("env", "HOROVOD_FUSION_THRESHOLD=0")
PEOPLE, GLOBAL_BATCH_SIZE, EVERY = 96, 12, 4  # an epoch has 8 steps


@dataclass(frozen=True)
class Result:
    """Result of a check: what was measured, the value as text, and whether it is in its bounds."""

    name: str
    value: str
    is_good: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("check", choices=CHECKS, help="what to check")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers of ranks of `equal`"
    )
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for result in CHECKS[arguments.check](Path(folder), arguments.ranks):
            print(f"{'ok' if result.is_good else 'BAD':4s}{result.name:50s}{result.value}")
            sys.stdout.flush()
            failures += not result.is_good
    print(f"{failures} results out of their bounds")
    return 1 if failures else 0


# ---- Shards against complete centres


def check_equality(folder: Path, ranks: list[int]) -> Iterator[Result]:
    """Train all cases of sharded_heads.py with both operators on each number of ranks."""
    for count in ranks:
        for operators in ("plain", "native"):
            out = folder / f"{operators}-{count}.npz"
            program = [HERE / "sharded_heads.py", out, operators, str(STEPS)]
            ended = run(count, program, timeout_s=1500)
            if ended.code:
                raise SystemExit(ended.everything)
            with np.load(out) as file:
                found = dict(file)
            cases = dict.fromkeys(name.split(".")[0] for name in found)
            for case in cases:
                yield equality(found, case, f"{count} ranks, {operators}: {case}")


def equality(found: dict[str, np.ndarray], case: str, name: str) -> Result:
    """Compare losses and centres of shards with those of complete centres."""

    def both(part: str) -> tuple[np.ndarray, np.ndarray]:
        return found[f"{case}.{part}.complete"], found[f"{case}.{part}.shards"]

    complete, shards = both("losses")
    losses = (abs(complete - shards) / abs(complete)).max()
    complete, shards = both("centres")
    centres = abs(complete - shards).max()
    predicts_alike = "samples" in case or bool(np.array_equal(*both("predicted")))
    moved = min(both("moved"))
    good = losses <= LOSS_BOUND and centres <= CENTRE_BOUND and predicts_alike and moved > 0.02
    return Result(name, f"losses {losses:.1e}, centres {centres:.1e}, moved {moved:.2f}", good)


# ---- Resumption


@dataclass(frozen=True)
class Segment:
    """Start of a run that is killed: its ranks, and the number of steps until the kill."""

    ranks: int
    steps: int | None
    """None: the run ends on its own."""


UNDISTURBED = (Segment(2, 4), Segment(3, 4), Segment(1, None))
"""Each kill comes directly after a checkpoint, so no step is trained twice."""
DISTURBED = (
    *(Segment(2, 1), Segment(2, 6), Segment(3, 2), Segment(3, 3), Segment(3, 5)),
    *(Segment(1, 1), Segment(1, 6), Segment(1, None)),
)
"""Kills between checkpoints: at the steps 1, 6, 6, 7, 9, 9 and 14."""


def check_resumption(folder: Path, _: list[int]) -> Iterator[Result]:
    """Kill and resume a sampled, sharded run on 2, 3 and 1 ranks; compare with an undisturbed one.

    The undisturbed run trains the same steps on the same numbers of ranks.
    """
    write_record_set(folder / "records", faces(PEOPLE, 1, (32, 32)), PEOPLE, image_size=(32, 32))
    runs = {}
    for name, segments in (("undisturbed", UNDISTURBED), ("disturbed", DISTURBED)):
        labels = train(folder, name, segments)
        runs[name] = folder / "runs" / f"{name}-001"
        for epoch in range(2):
            steps = [labels[step] for step in range(8 * epoch + 1, 8 * epoch + 9)]
            counts = Counter(label for step in steps for label in step)
            once = sum(count == 1 for count in counts.values())
            text = f"{once} of {PEOPLE} images exactly once"
            yield Result(f"{name}, epoch {epoch + 1}", text, once == len(counts) == PEOPLE)
    one, other = (read_losses(run) for run in runs.values())
    yield Result("steps", f"{len(one)} and {len(other)}", [*one] == [*other] == [*range(1, 17)])
    difference = max(abs(one[step] - other[step]) / abs(one[step]) for step in one)
    yield Result("losses, largest difference", f"{difference:.1e}", difference <= LOSS_BOUND)
    for step in (12, 16):
        yield compare(*(run / "checkpoints" / f"step-{step:08d}" for run in runs.values()))
    yield from check_division(folder, runs["disturbed"])


def train(folder: Path, name: str, segments: tuple[Segment, ...]) -> dict[int, list[int]]:
    """Train a run in segments; return the labels of the images by step, without lost steps."""
    cfg = write_cfg(
        folder,
        folder / "records",
        run={"name": name, "dir": str(folder / "runs"), "device": "cpu"},
        head={"sharded": True, "sample_rate": 0.5},
        optim={"lr": 0.005},
        train={"max_images": 16 * GLOBAL_BATCH_SIZE, "checkpoint_every": EVERY, "epochs": 0}
        | {"max_steps": 0, "keep_checkpoints": 2},
    )
    labels: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        out = folder / f"{name}-{number}"
        batch = f"data.batch_size={GLOBAL_BATCH_SIZE // segment.ranks}"
        program = [HERE / "record_labels.py", out, "--cfg", cfg, batch]
        pause = {} if segment.steps is None else pause_at(segment.steps)
        with Ranks(segment.ranks, program, pause, EXACT_SUMS) as started:
            if segment.steps is None:
                ended = started.wait()
                if ended.code:
                    raise SystemExit(ended.everything)
            else:  # a rank writes the labels of a step before the step
                started.until(lambda: at_step(out, segment.ranks, segment.steps + 1))  # noqa: B023
                ended = started.output()
                started.kill_all()
        rows = [path.read_text().splitlines() for path in sorted(out.glob("rank-*.txt"))]
        for step, of_ranks in enumerate(zip(*rows, strict=True), resumed_at(ended) + 1):
            labels[step] = [int(label) for row in of_ranks for label in row.split()]
    return labels


def at_step(folder: Path, ranks: int, step: int) -> bool:
    """Return whether every rank has written the labels of a step of this start."""
    files = [folder / f"rank-{rank}.txt" for rank in range(ranks)]
    return all(path.exists() and path.read_text().count("\n") >= step for path in files)


def compare(one: Path, other: Path) -> Result:
    """Compare parameters, momentum and sampler of two checkpoints."""
    parts = [open_checkpoint(folder) for folder in (one, other)]
    arrays = [
        {
            **part.stored("net.params"),
            **part.stored_head(),
            **part.shards.momentum(),
            **part.stored("momentum.params"),
        }
        for part in parts
    ]
    largest = max(abs(np.asarray(a) - np.asarray(arrays[1][n])).max() for n, a in arrays[0].items())
    samplers = [part.shards.sampler for part in parts]
    good = largest <= LOSS_BOUND and samplers[0] == samplers[1] and samplers[0]["draws"] > 0
    text = f"{len(arrays[0])} arrays differ by {largest:.1e}, samplers {samplers[0]}, {samplers[1]}"
    return Result(f"checkpoint {one.name}", text, good and arrays[0].keys() == arrays[1].keys())


def check_division(folder: Path, run_folder: Path) -> Iterator[Result]:
    """Divide the class centres of a run into 8, then into 3 and 1 shards; compare every byte."""
    plan = [(run_folder, "eight", 8), (folder / "eight", "three", 3), (run_folder, "direct", 3)]
    plan.append((folder / "three", "gathered", 1))
    for source, name, size in plan:
        action = ["gather"] if size == 1 else ["split", "--ranks", str(size)]
        code = change_checkpoints(["shards", *action, str(source), "--out", str(folder / name)])
        if code:
            raise SystemExit(f"{name}: code {code}")
    names = [f"fc7-{rank:05d}-of-00003.params" for rank in range(3)]
    same = [
        (folder / "three" / n).read_bytes() == (folder / "direct" / n).read_bytes() for n in names
    ]
    yield Result("8 shards to 3", f"{sum(same)} of 3 files equal to a direct division", all(same))
    source, gathered = (open_checkpoint(path).shards for path in (run_folder, folder / "gathered"))
    equal = [
        np.asarray(source.arrays[name]).tobytes() == np.asarray(gathered.arrays[name]).tobytes()
        for name in source.arrays
    ]
    text = f"{sum(equal)} of {len(equal)} arrays bit for bit"
    yield Result("8, 3 and 1 shards to the run's", text, all(equal) and len(equal) == 2)


# ---- Refusal


def check_refusal(folder: Path, _: list[int]) -> Iterator[Result]:
    """Resume a run with a damaged, a missing and a foreign shard; no step may be trained."""
    write_record_set(folder / "records", faces(PEOPLE, 1, (32, 32)), PEOPLE, image_size=(32, 32))
    configurations = {}
    for name in ("own", "other"):
        configurations[name] = write_cfg(
            folder / name,
            folder / "records",
            run={"name": name, "dir": str(folder / "runs"), "device": "cpu"},
            head={"sharded": True, "sample_rate": 0.5},
            train={"max_steps": 8, "checkpoint_every": 2},
        )
        out = folder / f"{name}-labels"
        program = [HERE / "record_labels.py", out, "--cfg", configurations[name]]
        with Ranks(2, program, pause_at(5)) as started:
            started.until(lambda: at_step(out, 2, 6))  # noqa: B023
            started.kill_all()
    own, other = (
        folder / "runs" / f"{name}-001" / "checkpoints" / "step-00000004"
        for name in ("own", "other")
    )
    shard = own / "fc7-00001-of-00002.params"
    content = shard.read_bytes()
    earlier = own.with_name("step-00000002") / shard.name
    changes = {
        "one bit differs": content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
        "truncated": content[:-300],
        "empty": b"",
        "missing": None,
        "of another run": (other / shard.name).read_bytes(),
        "of an earlier step": earlier.read_bytes(),
        "of another rank": (own / "fc7-00000-of-00002.params").read_bytes(),
    }
    before = read_metrics(own.parents[1])
    for name, changed in changes.items():
        shard.unlink(missing_ok=True)
        if changed is not None:
            shard.write_bytes(changed)
        for ranks in (2, 3):
            ended = run(ranks, training(configurations["own"], f"data.batch_size={12 // ranks}"))
            lines = [line for line in ended.stderr.splitlines() if str(shard) in line]
            untrained = "step " not in ended.stdout and read_metrics(own.parents[1]) == before
            refused = "Exit code: 2" in ended.launcher_output  # horovodrun itself ends with 1
            good = refused and len(lines) == 1 and untrained
            text = lines[0].replace(str(shard), shard.name) if lines else ended.everything
            yield Result(f"{name}, {ranks} ranks", f"code {ended.code}: {text[:300]}", good)
    shard.write_bytes(content)
    ended = run(3, training(configurations["own"], "data.batch_size=4"))
    text = f"code {ended.code}, resumed at step {resumed_at(ended)}"
    yield Result("restored", text, ended.code == 0 and resumed_at(ended) == 4)
    shutil.rmtree(folder / "runs")


CHECKS = {"equal": check_equality, "resume": check_resumption, "refuse": check_refusal}

if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Render a small face-recognition data set of people who do not exist.

    python tools/make_sample_faces.py data/sample_faces

The tool writes a record set (train.rec, train.idx, property) and a verification set of other people
(sample_val.bin).  sample_val.people.txt names the person on each image of the verification set, and
made_with.json holds the arguments of this command.  The same arguments give the same bytes in each
file.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2

from atomic_write import atomic_write
from evaluation.pairs import write_pairs
from evaluation.people import people_path, write_people
from launch.config.paths import home_path
from pipeline.records.writer import write_record_set
from tools.sample_faces.pairs import FOLDS, choose_pairs, look_number_of
from tools.sample_faces.people import Person, draw_person
from tools.sample_faces.renderer import render_jpeg

GENERATOR_VERSION = 1
"""Version of this generator.  Increase it whenever a change of the code changes the files."""
LOOKS = 10
"""Number of combinations of skin colour, hair colour and hair style; many people share each one."""
RECORD_FILES = ("train.rec", "train.idx", "property")
PAIRS_FILE = "sample_val.bin"
ARGUMENTS_FILE = "made_with.json"
Job = tuple[int, int, int, int]
"""Arguments of `render_jpeg`: seed, person number, look number, image number."""


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return 0; on an error, print one sentence to stderr and return 2."""
    options = _parse(argv)
    arguments = {key: value for key, value in vars(options).items() if key not in _NOT_RECORDED}
    arguments["generator_version"] = GENERATOR_VERSION
    try:
        _check(options)
        if is_made(options.out, arguments):
            print(f"{options.out}: the sample faces are already made with these arguments")
            return 0
        make(options.out, arguments, options.workers)
    except (OSError, ValueError) as error:
        print(f"make_sample_faces: {_sentence(error, options.out)}", file=sys.stderr)
        return 2
    print(
        f"{options.out}: {options.people * options.images_per_person} images of {options.people} "
        f"people, {options.pairs} pairs of {options.pairs_people} other people"
    )
    return 0


def make(out: Path, arguments: dict[str, int], workers: int) -> None:
    """Render all images, and write the record set and the verification set.

    ARGUMENTS_FILE is written last: its presence shows that all other files are complete.

    Parameters
    ----------
    out
        Output folder, created if it is missing.
    arguments
        Content of ARGUMENTS_FILE.  The arguments people, images_per_person, pairs_people, pairs and
        seed determine the images and the pairs.
    workers
        Number of rendering processes.
    """
    seed, people = arguments["seed"], arguments["people"]
    out.mkdir(parents=True, exist_ok=True)
    (out / ARGUMENTS_FILE).unlink(missing_ok=True)

    others = list(range(people, people + arguments["pairs_people"]))
    look_of = {n: look_number_of(i, len(others), LOOKS) for i, n in enumerate(others)}
    pairs = choose_pairs(others, lambda n: _person(seed, n, look_of[n]), arguments["pairs"], seed)
    shown = [image for pair in pairs for image in (pair.first, pair.second)]
    faces = render_all([(seed, n, look_of[n], image) for n, image in shown], workers)
    write_pairs(out / PAIRS_FILE, list(faces), [pair.same for pair in pairs])
    write_people(out / PAIRS_FILE, (person for person, _ in shown))

    jobs = [
        (seed, n, n % LOOKS, image)
        for n in range(people)
        for image in range(arguments["images_per_person"])
    ]
    labels = (number for _, number, _, _ in jobs)
    write_record_set(out, zip(labels, render_all(jobs, workers), strict=True), people)
    with atomic_write(out / ARGUMENTS_FILE, "w") as file:
        file.write(json.dumps(arguments, indent=2) + "\n")


def is_made(out: Path, arguments: dict[str, int]) -> bool:
    """Return whether the folder holds a complete data set made with these arguments."""
    try:
        recorded = json.loads((out / ARGUMENTS_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return False
    return recorded == arguments and all(
        (out / name).is_file() for name in (*RECORD_FILES, PAIRS_FILE, people_path(PAIRS_FILE).name)
    )


def render_all(jobs: Iterable[Job], workers: int) -> Iterator[bytes]:
    """Render one image per job in several processes; yield the JPEG bytes in the order of jobs."""
    if workers == 1:
        yield from map(_render_job, jobs)
        return
    # Spawn the processes: a forked process could inherit a lock that a thread of OpenCV holds, and
    # would then wait for the lock forever.
    with multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(_render_job, jobs, chunksize=16)


def _render_job(job: Job) -> bytes:
    seed, number, look_number, image = job
    return render_jpeg(seed, number, _person(seed, number, look_number), image)


@functools.lru_cache(maxsize=256)
def _person(seed: int, number: int, look_number: int) -> Person:
    return draw_person(seed, number, look_number)


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError if an option has a wrong value."""
    least = {"people": 2, "images_per_person": 1, "pairs_people": 2, "pairs": 2 * FOLDS,
             "seed": 0, "workers": 1}  # fmt: skip
    for key, bound in least.items():
        if getattr(options, key) < bound:
            flag = "--" + key.replace("_", "-")
            raise ValueError(
                f"{flag}: must be at least {bound}, got {getattr(options, key)}; use a "
                "larger number"
            )
    if options.pairs % (2 * FOLDS):
        raise ValueError(
            f"--pairs: must be a multiple of {2 * FOLDS} ({FOLDS} folds, each with as many pairs "
            f"of one person as of two people), got {options.pairs}; use "
            f"{options.pairs // (2 * FOLDS) * 2 * FOLDS or 2 * FOLDS}"
        )


def _sentence(error: Exception, out: Path) -> str:
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return f"{error.filename or out}: cannot be written, got {reason!r}; choose another folder"
    return str(error)


_NOT_RECORDED = ("out", "workers")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Render a small face-recognition data set of people who do not exist.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=home_path, metavar="OUT", help="output folder")
    parser.add_argument(
        "--people", type=int, default=800, help="number of people in the training set"
    )
    parser.add_argument(
        "--images-per-person", type=int, default=9, help="number of training images per person"
    )
    parser.add_argument(
        "--pairs-people", type=int, default=100, help="number of people in the verification set"
    )
    parser.add_argument(
        "--pairs", type=int, default=1000, help="number of verification pairs (a multiple of 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="number of rendering processes"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

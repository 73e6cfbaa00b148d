# SPDX-License-Identifier: Apache-2.0
"""First use of the program: bad images, a loss that rises, and the last line of a run."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.parallel.ranks import (
    CRASH_AFTER,
    CRASHED,
    read_losses,
    read_metrics,
    run,
    run_several,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel

PEOPLE, IMAGES = 8, 6
BAD = (5, 17, 18)
SKIP = {"on_bad_image": "skip", "max_bad_fraction": 0.1}


@pytest.fixture(scope="session")
def bad_records(make_records, make_face):
    """Return a folder with 48 images, of which the images of the rows in BAD are damaged."""
    samples = [(row // IMAGES, make_face(row // IMAGES, row % IMAGES)) for row in range(48)]
    for row in BAD:
        samples[row] = (samples[row][0], b"\xff\xd8" + bytes(range(200)) + b"\xff\xd9")
    return make_records(PEOPLE, IMAGES, samples=samples)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def with_bad_images(bad_records, tmp_path_factory):
    """Return the folder of the runs and the results: complete, crashed, resumed, refused."""
    folder = tmp_path_factory.mktemp("bad-images")
    cfg = write_cfg(
        folder,
        bad_records,
        data={"batch_size": 4, **SKIP},
        train={"max_steps": 8, "checkpoint_every": 3, "log_every": 1},
    )
    part = training(cfg, "run.name=part")[1:]
    commands = [
        training(cfg, "run.name=whole")[1:],
        [f"{CRASH_AFTER}4", *part],
        part,
        training(cfg, "run.name=refused", "data.max_bad_fraction=0.05", "train.log_every=2")[1:],
    ]
    return folder / "runs", run_several(2, folder, commands)


def test_two_ranks_skip_bad_images_and_resume_exactly(with_bad_images, bad_records):
    runs, (whole, crashed, again, _) = with_bad_images
    assert whole.code == 0, whole.everything
    folder, part = runs / "whole-001", runs / "part-001"
    rec = bad_records / "train.rec"
    problems = sorted(f"{rec}: the image of key {row + 1} cannot be decoded" for row in BAD)
    found = summary_of(folder)["skipped_images"]
    assert found["count"] == 3 and sorted(found["images"]) == problems
    assert sorted(re.findall(r"skipped bad image \d: (.*)", whole.stdout)) == problems
    assert read_metrics(folder)[-1]["skipped_images"] == 3

    assert (crashed.code, again.code) == (CRASHED, 0), again.everything
    assert "resumed at step 3" in again.stdout
    resumed, expected = read_losses(part), read_losses(folder)
    np.testing.assert_allclose(
        [resumed[step] for step in range(1, 9)], [expected[step] for step in range(1, 9)], rtol=1e-5
    )
    assert summary_of(part)["skipped_images"] == found


def test_too_many_bad_images_are_one_sentence_of_both_ranks(with_bad_images):
    ended = with_bad_images[1][-1]
    assert ended.code == 2, ended.everything
    sentences = re.findall(r"data\.max_bad_fraction: permits 2 .*", ended.stderr)
    assert len(sentences) == 1 and "Traceback" not in ended.rank_output


def test_a_diverged_run_finishes_with_a_warning_and_says_the_next_command(tiny_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        head={"name": "arcface"},
        train={"max_steps": 6, "log_every": 3},
        eval={"sets": [str(tiny_records / "tiny.bin")]},
    )
    ended = run(1, training(cfg, "optim.lr=5"))
    assert ended.code == 0, ended.everything
    folder = tmp_path / "runs" / "tiny-001"
    lines = ended.stdout.splitlines()
    assert re.match(
        r"warning: the loss rose from \S+ to \S+, so the net has not learned", lines[-2]
    )
    found = summary_of(folder)
    assert found["status"] == "finished" and lines[-2] in found["notices"]
    accuracy = found["verification"]["tiny"]["accuracy"]
    last = lines[-1]
    assert last.startswith("finished: step 6  loss ") and lines[-2].partition(";")[0] in last
    assert f"tiny accuracy {accuracy:.4f} at squared distance " in last
    assert f"folder {folder}" in last
    assert last.endswith(
        f"next: python -m evaluation verify --checkpoint {folder} --sets {tiny_records}/tiny.bin"
    )
    assert lines.index("verifying the net of step 6") > max(
        place for place, line in enumerate(lines) if line.startswith("step 6/6")
    )
    assert all("training accuracy 0." in line for line in lines if line.startswith("step "))
    assert all(0 <= line["training_accuracy"] <= 1 for line in read_metrics(folder)[:2])

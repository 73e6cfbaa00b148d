# SPDX-License-Identifier: Apache-2.0
"""Gluon loader: workers make the same batches, name a damaged image, and end on their own."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest

from pipeline import build_loader
from pipeline.decode.dali import MEAN, STD
from pipeline.gluon_loader import FaceDataset, GluonDecoder
from pipeline.records import RecordReader, open_records
from pipeline.sampling.augmentation import NO_AUGMENTATION, Augmentation
from pipeline.sampling.batches import batch_plans
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import RandomSampler

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def faces(make_records, tmp_path_factory):
    return open_records(make_records(13, 10), tmp_path_factory.mktemp("scan"))


def plans_of(records, augmentation):
    sampler = RandomSampler(records, 8)
    return batch_plans(records, sampler.batches(Position()), seed=1, augmentation=augmentation)


def test_images_match_their_plans_and_are_on_the_device(faces):
    decoder = GluonDecoder(faces, 0, mx.cpu(1), 8)
    images = decoder(plans_of(faces, NO_AUGMENTATION))
    expected = plans_of(faces, NO_AUGMENTATION)
    for (image, plan), right in islice(zip(images, expected), 3):
        assert image.context == mx.cpu(1) and image.dtype == np.float32
        assert (plan.rows == right.rows).all() and plan.after == right.after
        pixels = [cv2.imdecode(jpeg, 1)[:, :, ::-1] for jpeg in RecordReader(faces).read(plan.rows)]
        planes = (np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) - MEAN) / STD
        assert (image.asnumpy() == planes).all()
    images.close()
    decoder.close()
    assert decoder.files == []


def test_the_dataset_applies_the_parameters_of_a_row(faces):
    dataset, plans = FaceDataset(faces), plans_of(faces, Augmentation())
    plan = next(plans)
    row, params = plan.rows[0], next(plan.params.each())
    assert len(dataset) == 130
    turned = params._replace(mirror=~params.mirror)
    assert (dataset[row, params] == dataset[row, turned][:, :, ::-1]).all()


# One loader per process, as in training: a second loader would fork while threads of the first one
# hold locks of MXNet, and its workers would wait for these locks forever.
WORKERS = """
import sys
from itertools import islice
import numpy as np
from pipeline import build_loader
from pipeline.records import RecordError, open_records

rec, folder, batch_size, workers = *sys.argv[1:3], *map(int, sys.argv[3:])
loader = build_loader("cpu", open_records(rec, folder), batch_size, workers=workers)
try:
    batches = list(islice(loader, 10))
    np.savez(f"{folder}/batches-{workers}.npz", images=[b.image.asnumpy() for b in batches],
             labels=[b.label.asnumpy() for b in batches], after=[b.after for b in batches])
except RecordError as error:
    print(error)
loader.close()
"""


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a new process, which forks workers before MXNet or DALI start threads."""
    watch = "import faulthandler; faulthandler.dump_traceback_later(600, exit=True)\n"
    return subprocess.run(
        [sys.executable, "-c", watch + program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def take(count, records, batch_size):
    """Return images, labels and positions of some batches without worker processes."""
    loader = build_loader("cpu", records, batch_size, workers=0)
    batches = list(islice(loader, count))
    loader.close()
    images = np.stack([batch.image.asnumpy() for batch in batches])
    labels = np.stack([batch.label.asnumpy() for batch in batches])
    return images, labels, [batch.after for batch in batches]


def test_worker_processes_make_the_same_batches(faces, tmp_path):
    images, labels, after = take(10, faces, 16)
    for workers in (1, 2):
        done = run_program(WORKERS, faces.files[0], tmp_path, 16, workers)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        with np.load(tmp_path / f"batches-{workers}.npz") as found:
            assert (found["images"] == images).all() and (found["labels"] == labels).all()
            assert found["after"].tolist() == [list(place) for place in after]


def test_worker_processes_name_a_damaged_image(make_records, make_face, tmp_path):
    images = [(number, make_face(number, 0)) for number in range(20)]
    images[6] = (6, b"\xff\xd8" + bytes(range(200)))
    bad = make_records(20, 1, samples=images) / "train.rec"
    done = run_program(WORKERS, bad, tmp_path, 4, 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{bad}: the image of key 7 cannot be decoded; fix the record or leave its key out of "
        "the .idx\n"
    )

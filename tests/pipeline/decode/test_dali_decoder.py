# SPDX-License-Identifier: Apache-2.0
"""DALI decoder: bad images that DALI finds are replaced in all batches that are in flight."""

from __future__ import annotations

from itertools import islice

import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode.dali import DecodeGraph
from pipeline.decode.dali_decoder import IN_FLIGHT_GROUPS
from pipeline.decode.decoders import make_decoder
from pipeline.records import RecordError, open_records
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.bad_images import BadImages, replacements
from pipeline.sampling.batches import batch_plans
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import RandomSampler

BAD = (3, 4, 9)


@pytest.fixture(scope="module")
def records(make_records, make_face, tmp_path_factory):
    """Return 4 people x 4 images, of which DALI cannot decode the images of the rows in BAD."""
    samples = [(row // 4, make_face(row // 4, row % 4)) for row in range(16)]
    for row in BAD:
        # The header still states the size, but the quantisation tables are a comment.
        damaged = samples[row][1].replace(b"\xff\xdb", b"\xff\xfe")
        samples[row] = (samples[row][0], damaged)
    return open_records(make_records(4, 4, samples=samples), tmp_path_factory.mktemp("scan"))


def decoded(records, bad_images, count, ctx=None):
    sampler = RandomSampler(records, 8, seed=2)
    augmentation = Augmentation(grey=0.5)  # DALI normalises: each group is one batch
    plans = batch_plans(records, sampler.batches(Position()), seed=2, augmentation=augmentation)
    decoder = make_decoder(
        "cpu", records, sampler, augmentation=augmentation, bad_images=bad_images, ctx=ctx
    )
    images = decoder(plans)
    try:
        return [(image.asnumpy(), plan) for image, plan in islice(images, count)]
    finally:
        images.close()
        decoder.close()


@pytest.mark.parametrize("operators", ["plain", "native"])
def test_batches_in_flight_are_decoded_again_without_the_bad_images(
    records, operators, monkeypatch
):
    ops.use(operators)
    made = []

    class Counted(DecodeGraph):
        def __init__(self, *arguments, **options):
            made.append(1)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("pipeline.decode.decoders.DecodeGraph", Counted)
    bad = BadImages(records, len(BAD))
    found = decoded(records, bad, 6)
    assert sorted(row for row in range(16) if bad.knows(row)) == list(BAD)
    assert 2 <= len(made) <= 1 + len(BAD)
    again = decoded(records, bad, 6)  # all bad images are known now
    for (image, plan), (other, _) in zip(found, again, strict=True):
        rows = plan.original.rows if plan.original else plan.rows
        is_bad = np.isin(rows, BAD)
        places = replacements(is_bad, records.labels[rows])
        assert (plan.rows == rows[places]).all()
        assert (image == other).all()
        assert (image == image[places]).all()  # the replacement is augmented alike


def test_a_bad_image_in_flight_is_the_error_if_images_are_not_skipped(records):
    with pytest.raises(RecordError, match=r"key (4|5|10) cannot be decoded; fix the record"):
        decoded(records, None, IN_FLIGHT_GROUPS + 1, ctx=mx.cpu())

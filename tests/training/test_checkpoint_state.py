# SPDX-License-Identifier: Apache-2.0
"""Content of state.json: values of wrong types or out of range are refused with a sentence."""

from __future__ import annotations

import pytest

from training.checkpoint_state import find_fault

META = {"net": {"name": "mobilefacenet"}, "image_size": [112, 112], "mean": 127.5, "std": 128.0}
STATE = {
    "progress": {"step": 3, "images": 96, "epoch": 0, "consumed": 96},
    "epoch_images": 960,
    "end_images": 1920,
    "data": {"images": 960},
    "meta": META,
}


def test_a_complete_and_an_empty_state_have_no_fault():
    assert find_fault(STATE) == find_fault({}) == find_fault({"meta": META}) == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"meta": []}, "must describe the network under 'meta', got []"),
        ({"meta": {**META, "image_size": [112]}}, "must have meta.image_size = [height, width]"),
        ({"meta": {**META, "image_size": [112, 10**9]}}, "got [112, 1000000000]"),
        ({"meta": {**META, "image_size": [112, -1]}}, "got [112, -1]"),
        ({"meta": {**META, "image_size": {"a": 1}}}, "got {'a': 1}"),
        ({"meta": {**META, "net": "r50"}}, "the options of the net under meta.net, got 'r50'"),
        ({"meta": {**META, "net": {}}}, "the options of the net under meta.net, got {}"),
        ({"meta": {**META, "std": 0}}, "a finite number above 0 as meta.std, got 0"),
        ({"meta": {**META, "mean": float("nan")}}, "a finite number as meta.mean, got nan"),
        ({"meta": {**META, "mean": [1]}}, "a finite number as meta.mean, got [1]"),
        ({"progress": 7}, "must have only the counts step, images, epoch, consumed in progress"),
        ({"progress": {"stop": 1}}, "in progress, got {'stop': 1}"),
        ({"progress": {"step": -1}}, "must have a whole number from 0 as progress.step, got -1"),
        ({"progress": {"step": 1.5}}, "as progress.step, got 1.5"),
        ({"progress": {"step": 10**30}}, f"as progress.step, got {10**30}"),
        ({"epoch_images": "many"}, "must have a whole number from 0 as epoch_images, got 'many'"),
        ({"end_images": True}, "must have a whole number from 0 as end_images, got True"),
        ({"step_images": -8}, "must have a whole number from 0 as step_images, got -8"),
        ({"data": [1]}, "must have a mapping as data, got [1]"),
    ],
)
def test_a_wrong_value_is_named(change, fault):
    assert fault in find_fault({**STATE, **change})

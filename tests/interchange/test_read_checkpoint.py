# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as stored models."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from interchange.read_checkpoint import read_checkpoint
from interchange.stored_net import build_stored_net
from tests.runs import save_run
from training import checkpoint_folders

SIZE = (32, 32)


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run", image_size=SIZE)


def change_state(run, **meta) -> None:
    """Change the description of the network in the checkpoint, and its manifest."""
    folder = run / "checkpoints" / "step-00000007"
    state = json.loads((folder / "state.json").read_text())
    state["meta"].update(meta)
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["state.json"] = checkpoint_folders.fingerprint(folder / "state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_class_centres_are_the_head(run):
    model = read_checkpoint(run)
    assert model.head["weight"].shape == (2, 8)


@pytest.mark.parametrize("mean, std", [(127.5, 127.5), (0.0, 255.0)])
def test_another_normalisation_is_converted(run, mean, std):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *SIZE)).astype(np.float32)
    net = build_stored_net(read_checkpoint(run))
    expected = net(mx.nd.array((pixels - mean) / std)).asnumpy()
    change_state(run, mean=mean, std=std)
    converted = build_stored_net(read_checkpoint(run))
    found = converted(mx.nd.array((pixels - 127.5) / 128)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)

# SPDX-License-Identifier: Apache-2.0
"""Small configurations for the tests, with overrides as on the command line."""

from __future__ import annotations

from heads import HEADS
from launch.config.cli import apply_overrides
from launch.config.configuration import Config, build_config
from nets import NETS

SMALL = {
    "run": {"name": "small", "device": "cpu", "operators": "plain"},
    "data": {"records": "nowhere", "batch_size": 4, "prefetch": 1},
    "net": {"name": "mobilefacenet", "width": 0.125, "embedding_size": 16},
    "head": {"name": "arcface"},
    "train": {"max_steps": 6},
}
SYNTHETIC = ("data.records=[]", "data.loader=synthetic", "data.num_classes=10")


def make_config(*overrides: str) -> Config:
    """Return the configuration of a short run with a small net."""
    return build_config(apply_overrides(SMALL, overrides), NETS, HEADS)


def make_synthetic(*overrides: str) -> Config:
    """Return the configuration of a short run on synthetic batches."""
    return make_config(*SYNTHETIC, *overrides)

# SPDX-License-Identifier: Apache-2.0
"""Training settings of each loss in the gallery of losses (tools/loss_gallery.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Training settings of one loss."""

    head: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the head."""
    rule: str = "cosine"
    """Classification rule for the accuracy; see `tools.gallery.training.classify`."""
    lr: float = 0.1
    epochs: float = 5
    batch: int = 256
    warmup: float = 0.1
    """Fraction of the run, from its start, during which the learning rate rises."""
    clip_norm: float = 2.0
    centre_length: float = 0.0
    """Radius of the circle on which the class centres start; 0 keeps the head's initial values."""
    by_person: bool = False
    """Whether a batch has equally many images of each digit, which losses on pairs need."""
    circle: bool = False
    """Whether the plot shows embeddings normalised to unit norm."""


PAIRS: dict[str, Any] = {
    "rule": "mean cosine",
    "by_person": True,
    "batch": 250,
    "circle": True,
}
AROUND: dict[str, Any] = {"centre_length": 1.0}
"""Settings of heads whose class centres start evenly spaced on a circle; see docs/gallery.md."""

LOSSES = {
    "softmax": Setting(rule="product", epochs=10),
    "l2_softmax": Setting({"scale": 10.0}, rule="product"),
    "normface": Setting({"scale": 30.0}, **AROUND),
    "sphereface": Setting({"m1": 1.2, "scale": 30.0}, **AROUND),
    "cosface": Setting({"m3": 0.1, "scale": 30.0}, **AROUND, epochs=10),
    "arcface": Setting({"m2": 0.1, "scale": 30.0}, **AROUND, epochs=10),
    "combined": Setting({"m1": 1.05, "m2": 0.05, "m3": 0.05, "scale": 30.0}, **AROUND),
    "a_softmax": Setting({"m1": 2}),
    "sv_softmax": Setting({"t": 1.1, "m3": 0.1, "scale": 30.0}, **AROUND),
    "sub_center_arcface": Setting({"sub_centers": 2, "m2": 0.1, "scale": 30.0}),
    "curricularface": Setting({"m2": 0.1, "scale": 30.0}, **AROUND),
    # The scale that AdaCos computes diverges in two dimensions, as docs/gallery.md explains.
    "adacos": Setting(**AROUND),
    "adaface": Setting({"m": 0.1, "scale": 30.0}, **AROUND),
    "magface": Setting(
        {
            "low": 1.0,
            "high": 30.0,
            "least": 0.05,
            "most": 0.15,
            "length_weight": 5.0,
            "scale": 30.0,
        },
        **AROUND,
    ),
    "elasticface": Setting({"m2": 0.1, "sigma": 0.02, "scale": 30.0}, **AROUND),
    "circle": Setting({"m": 0.65, "scale": 80.0}, **AROUND, lr=0.02, warmup=0.2),
    "intra": Setting({"m2": 0.1, "scale": 30.0}, **AROUND),
    "inter": Setting({"m2": 0.1, "scale": 30.0}, **AROUND),
    "center": Setting({"center_weight": 1.0}, **AROUND, rule="product", epochs=10),
    "git": Setting({"center_weight": 1.0, "git_weight": 0.1}, **AROUND, rule="product"),
    "ring": Setting({"ring_weight": 0.3, "radius": 12.0}, **AROUND, rule="product", epochs=10),
    "range": Setting({"intra_weight": 1e-3, "inter_weight": 1e-3, "margin": 100.0}, rule="product"),
    "lgm": Setting(rule="distance", epochs=10),
    "coco": Setting(**AROUND),
    "marginal": Setting({"theta": 0.2, "xi": 0.1}, rule="product"),
    "contrastive": Setting({"margin": 0.9}, **PAIRS),
    "triplet": Setting({"margin": 0.1}, **PAIRS),
    "angular_triplet": Setting({"margin": 0.2}, **PAIRS),
    "n_pair": Setting(
        {"length_weight": 2e-4}, **{**PAIRS, "circle": False, "batch": 40, "lr": 0.03, "epochs": 4}
    ),
    # With this loss all embeddings collapse to one point, so more epochs would change nothing.
    "mps": Setting({"margin": 0.1}, **{**PAIRS, "epochs": 2}),
}

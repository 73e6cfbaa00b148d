# SPDX-License-Identifier: Apache-2.0
"""Compare the first losses of the demo with fused and with plain operators in double precision.

    python tests/ops/demo_curve.py data/sample_faces

Run it by hand: a step takes seconds.  It uses the images, initial weights, learning rates and
margins of `make train`.  It prints the losses of each step and exits with code 1 if the relative
difference of any step exceeds 1e-3.  In single precision, rounding errors alone change these losses
by 10 % (docs/operators.md).
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

import ops
from heads import build_head
from nets import build_net
from pipeline import build_loader
from pipeline.records.open import open_records
from tests.ops.test_curves import batch_norm, in_double_precision
from training.schedule import learning_rate, margin_fraction

BATCH, EPOCHS = 64, 6


def curve(choice: str, folder: Path, steps: int) -> np.ndarray:
    """Return the losses of the first ``steps`` steps."""
    ops.use(choice)
    records = open_records(folder, folder)
    epoch = len(records) // BATCH * BATCH
    end = EPOCHS * epoch
    mx.random.seed(1)
    net = build_net("mobilefacenet", width=0.5, embedding_size=128)
    head = build_head("arcface", records.num_classes, 128, m2=0.2, scale=24.0)
    trainer = in_double_precision(net, head, 0.1)
    loader = build_loader("dali", records, BATCH)
    losses: list[float] = []
    for batch in islice(loader, steps):
        used = len(losses) * BATCH
        rate = learning_rate(used, "cosine", 0.1, end, warmup=end // 20)
        trainer.set_learning_rate(rate)
        margin = mx.nd.array([margin_fraction(used, 0, end * 3 // 10)], dtype="float64")
        with mx.autograd.record():
            embedding = net(batch.image.astype("float64"))
            loss, _ = head(embedding, batch.label.astype("float64"), margin)
        loss.backward()
        trainer.step(BATCH)
        losses.append(float(loss.mean().asscalar()))
        print(f"{choice} step {len(losses)}: {losses[-1]:.12f}", flush=True)
    loader.close()
    return np.array(losses)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    native = curve("native", arguments.records, arguments.steps)
    nn.BatchNorm.hybrid_forward = batch_norm  # MXNet's uses float32 internally
    plain = curve("plain", arguments.records, arguments.steps)
    differences = np.abs(native / plain - 1)
    print(f"largest relative difference in {len(differences)} steps: {differences.max():.3g}")
    return int(not differences.max() <= 1e-3)


if __name__ == "__main__":
    sys.exit(main())

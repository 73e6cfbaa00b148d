# SPDX-License-Identifier: Apache-2.0
"""Measure the verification accuracy of an MXNet symbol with GluonFR's code.

    python gluonfr_verification_worker.py SETTINGS.json

The classes of GluonFR's data set and metric run unmodified, called as in GluonFR's
scripts/test_script.py.  The script has two metrics.  It resets the metric without mirror images
before each set, and never resets the metric with mirror images.  `tools.compare_verification`
writes the settings, and reads the output: one JSON line for each set.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon, nd

from tools.evaluation_checks.old_scipy import restore_old_scipy


def both(image: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
    """Return an image (H, W, 3) and its mirror image as float32 (3, H, W)."""
    flipped = nd.flip(image, axis=1)
    return tuple(nd.transpose(x, (2, 0, 1)).astype("float32") for x in (image, flipped))


def unit(embedding: nd.NDArray) -> nd.NDArray:
    """Return the embeddings (B, E) scaled to length 1."""
    return nd.L2Normalization(embedding, mode="instance")


def update(net: Any, batch: Any, plain: Any, flipped: Any) -> None:
    """Add the pairs of a batch to both metrics, as GluonFR's scripts/test_script.py does."""
    sides = [[net(view) for view in side] for side in batch[0]]
    plain.update(batch[1], *(unit(one) for one, _ in sides))
    flipped.update(batch[1], *(unit(nd.concatenate(views, 1)) for views in sides))


def main(settings: Path) -> None:
    """Print one JSON line with the accuracies and the seconds of each verification set."""
    given = json.loads(settings.read_text())
    restore_old_scipy(given["packages"])
    sys.path.insert(0, given["gluonfr"])
    from gluonfr.data.dataset import FRValDataset
    from gluonfr.metrics.verification import FaceVerification

    files = [f"{given['prefix']}-symbol.json", ["data"], f"{given['prefix']}-0000.params"]
    net = gluon.SymbolBlock.imports(*files, ctx=mx.cpu())
    net.hybridize()
    net(mx.nd.zeros((given["batch_size"], 3, *given["image_size"]))).wait_to_read()
    # Our thresholds (0 to 3.99) apply to squared distances.  GluonFR's thresholds apply to
    # distances, so they are the square roots of ours.
    thresholds = np.sqrt(np.arange(0, 4, 0.01))
    plain, flipped = (FaceVerification(thresholds=thresholds) for _ in range(2))
    for path in given["gluonfr_sets"]:
        start = time.perf_counter()
        source = FRValDataset(Path(path).stem, str(Path(path).parent), both)
        alone = FaceVerification(thresholds=thresholds)
        plain.reset()
        for batch in gluon.data.DataLoader(source, given["batch_size"], last_batch="keep"):
            update(net, batch, plain, flipped)
        found = [float(metric.get()[2]) for metric in (plain, flipped)]
        seconds = time.perf_counter() - start
        # GluonFR's script does not reset the metric with mirror images between sets.  Compute also
        # the value with a reset before this set, from the pairs of this set only.
        count = len(source)
        alone._dists, alone._issame = flipped._dists[-count:], flipped._issame[-count:]
        result = {"no flip": found[0], "flip as published": found[1], "seconds": seconds}
        result["flip after a reset"] = float(alone.get()[2])
        print(json.dumps({"set": path, **result}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

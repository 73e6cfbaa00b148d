# SPDX-License-Identifier: Apache-2.0
"""Save a network of GluonFR with random weights in two formats, and save its embeddings.

    python -I gluonfr_worker.py CHECKOUT FOLDER NAME

`tools.interchange_checks.gluonfr` starts this program.  Without -I, Python would import the file
gluonfr.py beside this program instead of GluonFR's package.

NAME is a key of ``NETWORKS``.  FOLDER contains pixels.npy: uint8 images (N, 112, 112, 3).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

RANGES = {
    "gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "alpha": (0.0, 0.5), "running_mean": (-0.5, 0.5),
    "running_var": (0.5, 2.0),
}  # fmt: skip
"""Mapping from the end of a parameter's name to the range of its random values."""


HEADLESS = {"need_cls_layer": False}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier": ("mobilefacenet", {"classes": 10, "weight_norm": True, "feature_norm": True}),
    "headless": ("mobilefacenet", HEADLESS),
    "se": ("mobilefacenet", {**HEADLESS, "use_se": True}),
    "seresnet18": ("l_se_resnet18v2", HEADLESS),
    "attention56": ("attentionfacenet56", HEADLESS),
}
"""Mapping from NAME to the network in GluonFR and its arguments."""


def draw(net: Any, seed: int) -> None:
    """Draw the weights, the running statistics and the PReLU slopes of a network at random."""
    mx.random.seed(seed)
    net.initialize(mx.init.MSRAPrelu())
    net(mx.nd.zeros((1, 3, 112, 112)))
    random = np.random.default_rng(seed)
    for name, parameter in net.collect_params().items():
        for end, (low, high) in RANGES.items():
            if name.endswith(end):
                parameter.set_data(mx.nd.array(random.uniform(low, high, parameter.shape)))


def main(checkout: str, target: str, name: str) -> None:
    """Write the parameter files and the embeddings of one network."""
    sys.path.insert(0, checkout)
    models = importlib.import_module("gluonfr.model_zoo")
    folder = Path(target)
    pixels = np.load(folder / "pixels.npy").transpose(0, 3, 1, 2).astype(np.float32)
    model, options = NETWORKS[name]
    net = models.get_model(model, **options)
    draw(net, list(NETWORKS).index(name))
    for mean, std in ((0.0, 255.0), (127.5, 127.5)):
        out = net(mx.nd.array((pixels - mean) / std))
        found = (out[0] if isinstance(out, tuple | list) else out).asnumpy()
        unit = found / np.linalg.norm(found, axis=1, keepdims=True)
        np.save(folder / f"{name}-{mean:g}.npy", unit)
    net.save_parameters(str(folder / f"{name}.params"))
    net.collect_params().save(str(folder / f"{name}-names.params"))


if __name__ == "__main__":
    main(*sys.argv[1:])

# SPDX-License-Identifier: Apache-2.0
"""Measure the verification accuracy of an MXNet symbol with InsightFace's verification.py.

    python insightface_worker.py SETTINGS.json

InsightFace's file recognition/arcface_mxnet/common/verification.py runs unmodified.
`tools.compare_verification` writes the settings, and reads the output: one JSON line for each set.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import mxnet as mx

from tools.evaluation_checks.old_scipy import restore_old_scipy


def load(path: Path) -> Any:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location("insightface_verification", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(settings: Path) -> None:
    """Print one JSON line with the accuracies and the seconds of each verification set."""
    given = json.loads(settings.read_text())
    restore_old_scipy(given["packages"])
    place = "recognition/arcface_mxnet/common/verification.py"
    verification = load(Path(given["insightface"]) / place)
    # With the fused operators of oneDNN, Module fails in MXNet 1.9.1 for graphs such as
    # MobileFaceNet ("We can't generate TBlob for MKLDNN data").
    os.environ["MXNET_SUBGRAPH_BACKEND"] = "NONE"
    symbol, arguments, states = mx.model.load_checkpoint(given["prefix"], 0)
    model = mx.mod.Module(symbol, context=mx.cpu(), label_names=None)
    shape = (given["batch_size"], 3, *given["image_size"])
    model.bind(data_shapes=[("data", shape)], for_training=False)
    model.set_params(arguments, states)
    model.forward(mx.io.DataBatch(data=(mx.nd.zeros(shape),)), is_train=False)
    model.get_outputs()[0].wait_to_read()
    for path in given["sets"]:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            data = verification.load_bin(path, given["image_size"])
            found = verification.test(data, model, given["batch_size"])
        result = {"flip": float(found[2]), "seconds": time.perf_counter() - start}
        print(json.dumps({"set": path, **result}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

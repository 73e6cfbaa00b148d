# SPDX-License-Identifier: Apache-2.0
"""Measure the verification accuracy of an MXNet symbol with the code of this repository.

    python our_worker.py SETTINGS.json

`tools.compare_verification` writes the settings, and reads the output: one JSON line for each set.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mxnet as mx

import normalization
from evaluation.commands.device import find_cut_off_check
from evaluation.commands.models import build_net_on, read_model
from evaluation.evaluate import embed_sets
from evaluation.pairs import read_pairs
from evaluation.people import find_people
from evaluation.set_check import check_sets
from evaluation.set_report import report_set


def main(settings: Path) -> None:
    """Print one JSON line with the accuracies and the seconds of each verification set."""
    given = json.loads(settings.read_text())
    model = read_model(given["prefix"])
    net = build_net_on(model, mx.cpu())
    net(mx.nd.zeros((given["batch_size"], 3, *model.image_size))).wait_to_read()
    for path in given["sets"]:
        start = time.perf_counter()
        sets = {path: read_pairs(path)}
        check_sets(sets, model.image_size)
        ((_, found),) = embed_sets(
            net,
            sets,
            mean=normalization.MEAN,
            std=normalization.STD,
            batch_size=given["batch_size"],
            ctx=mx.cpu(),
            image_size=model.image_size,
            cut_off=find_cut_off_check(),
        )
        report = report_set(found, sets[path].issame, find_people(sets[path]))
        result = {"flip": report["accuracy"], "no flip": report["no_flip"]["accuracy"]}
        result["seconds"] = time.perf_counter() - start
        print(json.dumps({"set": path, **result}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# SPDX-License-Identifier: Apache-2.0
"""Train a small net with each loss on the sample faces.

python tools/sample_losses.py OUT

The tool runs run_train.py once per loss, and prints the verification accuracies and the final
losses.  All runs have equal settings, except for those in SETTINGS.  The result shows whether
training with each loss works.  It does not show which loss is best, because that needs more people
and longer runs.  `make sample` renders the sample faces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from launch.config.paths import home_path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample_faces"
# The usual margin, m2=0.5 with scale=64, needs many more people than the sample faces have.
ANGLE = {"m2": 0.2, "scale": 24.0}
PEOPLE = {"data": {"images_per_person": 4}}
SETTINGS: dict[str, dict[str, Any]] = {
    "normface": {"head": {"scale": 24.0}},
    "sphereface": {"head": {"m1": 1.2, "scale": 24.0}},
    "cosface": {"head": {"m3": 0.15, "scale": 24.0}},
    "arcface": {"head": ANGLE},
    "combined": {"head": {"m2": 0.1, "m3": 0.1, "scale": 24.0}},
    "adaface": {"head": {"m": 0.2, "scale": 24.0}},
    "magface": {"head": {"least": 0.1, "most": 0.3, "length_weight": 5.0, "scale": 24.0}},
    "elasticface": {"head": ANGLE},
    "sv_softmax": {"head": {"t": 1.1, "m3": 0.15, "scale": 24.0}},
    "sub_center_arcface": {"head": ANGLE},
    "curricularface": {"head": ANGLE},
    "circle": {"head": {"scale": 64.0}},
    "intra": {"head": ANGLE},
    "inter": {"head": ANGLE},
    **{name: PEOPLE for name in ("range", "marginal", "contrastive", "triplet")},
    **{name: PEOPLE for name in ("angular_triplet", "n_pair", "mps")},
}
# All runs train on the same number of images, because their numbers of steps and their batch sizes
# are equal.  With data.images_per_person=4, an epoch has only four images of each person, so the
# same number of steps takes more epochs.
BASE: dict[str, dict[str, Any]] = {
    "data": {"records": str(SAMPLE), "batch_size": 64},
    "net": {"name": "mobilefacenet", "width": 0.25, "embedding_size": 128},
    "optim": {"lr": 0.1, "schedule": "cosine", "warmup": "10 %"},
    "train": {"log_every": 10, "checkpoint_every": 1000, "margin_warmup": "30 %"},
    "eval": {"sets": [str(SAMPLE)], "every_steps": 0},
}


def main() -> int:
    """Run the tool with the arguments of the command line, and return the exit code."""
    from heads import HEADS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "out", type=home_path, help="output folder for the runs and for losses.json"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=HEADS,
        default=list(HEADS),
        metavar="LOSS",
        help="train with these losses only",
    )
    parser.add_argument(
        "--steps", type=int, default=200, help="number of steps, each with 64 images (default: 200)"
    )
    arguments = parser.parse_args()
    if not SAMPLE.is_dir():
        print(
            "sample_losses: data/sample_faces must be a folder with the sample faces, got no such "
            "folder; run `make sample`",
            file=sys.stderr,
        )
        return 2
    found: dict[str, Any] = {}
    for name in arguments.only:
        found[name] = train(name, arguments.out, arguments.steps)
        print(
            f"{name:20} accuracy {found[name]['accuracy']:.3f}  "
            f"final loss {found[name]['final_loss']:.3f}",
            flush=True,
        )
    report = json.dumps({"steps": arguments.steps, "losses": found}, indent=2)
    (arguments.out / "losses.json").write_text(report + "\n")
    return 0


def train(name: str, out: Path, steps: int) -> dict[str, float]:
    """Train with one loss in a separate process; return verification accuracy and final loss."""
    config = {section: dict(values) for section, values in BASE.items()}
    config["train"]["max_steps"] = steps
    config["train"]["epochs"] = 1000
    config["run"] = {"dir": str(out), "name": name, "resume": False}
    for section, values in SETTINGS.get(name, {}).items():
        config.setdefault(section, {}).update(values)
    config.setdefault("head", {})["name"] = name
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, str(ROOT / "run_train.py"), "--cfg", str(path)]
    with (out / f"{name}.log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        last = (out / f"{name}.log").read_text().splitlines()[-1:]
        raise SystemExit(
            f"sample_losses: {name}: the training must end with exit code 0, got "
            f"{done.returncode}, last line of its log: {''.join(last)}; see {out / name}.log"
        )
    (folder,) = out.glob(f"{name}*/summary.json")
    summary = json.loads(folder.read_text())
    (verification,) = summary["verification"].values()
    return {"accuracy": verification["accuracy"], "final_loss": summary["final_loss"]}


if __name__ == "__main__":
    sys.exit(main())

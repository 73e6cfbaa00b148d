# SPDX-License-Identifier: Apache-2.0
"""Check a refactoring: two checkouts must train with the same losses to the last digit.

    python tests/parallel/same_losses.py BEFORE [--faces FOLDER] [--steps 60] [--only TEXT]

BEFORE is another checkout with its own environment (``make setup sample``).  The command trains the
first steps of demo.yaml on one and two ranks in both checkouts, with every reader, every CPU
decoder and every augmentation, and compares the losses of all steps.  With ``--faces`` it also
trains faces.yaml on two ranks.  ``--keep FILE`` saves the losses of BEFORE for the next call.  The
exit code is 1 if a loss differs.  The command takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READERS = ("random", "blocks", "window")
DECODERS = ("native", "cpu")
AUGMENTATIONS = {
    "colour jitter": ["data.color_jitter=0.2"],
    "second compression": ["data.jpeg_quality=[10, 30]"],
    "cut-out": ["data.cut_out=40"],
    "shift": ["data.shift=8"],
    "grey": ["data.grey=0.3"],
    "no mirror": ["data.mirror=false"],
    "decoded cache": ["data.decoded_cache_mib=1024"],
}
ALL = ["data.color_jitter=0.2", "data.jpeg_quality=[10, 30]", "data.cut_out=40", "data.shift=8"]
ALL += ["data.grey=0.3"]
TIMEOUT_S = 1800


def cases(faces: bool) -> dict[str, tuple[str, int, list[str]]]:
    """Return (configuration, ranks, overrides) of every run, by name."""
    found = {}
    runs = [("demo.yaml", 1), ("demo.yaml", 2), *([("faces.yaml", 2)] if faces else [])]
    for config, ranks in runs:
        label = f"{config} -np {ranks}"
        for reader in READERS:
            for decoder in DECODERS:
                overrides = [f"data.reader={reader}", f"data.decode={decoder}"]
                found[f"{label} {reader} {decoder}"] = (config, ranks, overrides)
        found[f"{label} all augmentations native"] = (config, ranks, ALL)
        window = ["data.reader=window", "data.decode=cpu", *ALL]
        found[f"{label} all augmentations window cpu"] = (config, ranks, window)
    for name, overrides in AUGMENTATIONS.items():
        found[f"demo.yaml -np 2 {name}"] = ("demo.yaml", 2, overrides)
    return found


def losses(
    checkout: Path, config: str, ranks: int, overrides: list[str], steps: int, faces: Path | None
) -> list[str]:
    """Return the losses of one run in a checkout, as written in its metrics.jsonl."""
    python = checkout / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(python), "-m", "launch.local", "-np", str(ranks), "--cfg", config),
            *(f"run.dir={folder}", "run.name=same", f"train.max_steps={steps}"),
            *("train.log_every=1", "train.checkpoint_every=1000000", "eval.sets=[]"),
            *overrides,
        ]
        environment = {**os.environ, **({"FACES_DIR": str(faces)} if faces else {})}
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\ncode {done.returncode}\n{done.stderr}")
        (metrics,) = Path(folder).glob("same-*/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [repr(line["loss"]) for line in lines if "loss" in line]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout to compare with")
    parser.add_argument("--faces", type=Path, help="folder of real faces, for faces.yaml")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run (60)")
    parser.add_argument("--only", default="", help="runs whose name contains this text")
    parser.add_argument("--keep", type=Path, help="file for the losses of BEFORE")
    parser.add_argument("--before-only", action="store_true", help="only fill the file of --keep")
    arguments = parser.parse_args()
    kept = {}
    if arguments.keep and arguments.keep.is_file():
        kept = json.loads(arguments.keep.read_text())
    failures, count = 0, 0
    for name, case in cases(arguments.faces is not None).items():
        if arguments.only not in name:
            continue
        key = f"{name}, {arguments.steps} steps"
        if key not in kept:
            kept[key] = losses(
                arguments.before.resolve(), *case, steps=arguments.steps, faces=arguments.faces
            )
            if arguments.keep:
                arguments.keep.write_text(json.dumps(kept, indent=0))
        if arguments.before_only:
            continue
        before = kept[key]
        after = losses(ROOT, *case, steps=arguments.steps, faces=arguments.faces)
        count += 1
        steps = max(len(before), len(after))
        differ = [i + 1 for i in range(steps) if before[i : i + 1] != after[i : i + 1]]
        failures += bool(differ) or len(before) != arguments.steps
        said = f"differs from step {differ[0]} on" if differ else f"{len(before)} losses equal"
        print(f"{name}: {said}", flush=True)
    print(f"{count - failures} of {count} runs equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

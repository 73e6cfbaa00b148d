# SPDX-License-Identifier: Apache-2.0
"""Check the Docker image for GPUs in containers that use all GPUs (step 8 of `tools.gpu_day`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tools.gpu_day.commands import Ended, run
from tools.gpu_day.results import Parts, Skipped

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

QUERY_TIMEOUT_S, LIMIT_S = 10, 40
SHARED_MEMORY = "--shm-size=8g"
USAGE_CODE = 2
STEPS = 50


def measure(setting: Setting, parts: Parts) -> None:
    """Run the image's command `check` and training runs in containers with all GPUs.

    The last training run must be refused, because its container has too little shared memory.  With
    one GPU, the last run is skipped.
    """
    with parts.part("containers"):
        label = f"gpu-day={os.getpid()}"
        # Containers are children of the Docker daemon, so they outlive this process.  On SIGTERM,
        # SystemExit is raised, so that the `finally` below ends the containers.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        require_image(setting.image)
        try:
            _measure(setting, parts, label)
        finally:
            end_containers(label)


def require_image(image: str) -> None:
    """Raise Skipped if the docker command or the Docker image is missing."""
    if not shutil.which("docker"):
        raise Skipped("docker is not installed")
    if run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", image], limit_s=QUERY_TIMEOUT_S
    ).code:
        raise Skipped(
            f"there is no Docker image {image}; build the image as docker/README.md describes"
        )


def _measure(setting: Setting, parts: Parts, label: str) -> None:
    runs = setting.scratch / "runs"
    runs.mkdir()
    train = ["horovodrun", "-np", str(setting.gpus), "python", "run_train.py"]
    train += ["--cfg", "mbf_arcface.yaml", "data.records=/data", f"train.max_steps={STEPS}"]
    train += ["eval.sets=[]"]
    ended = start(setting, label, [SHARED_MEMORY], ["check", *train])
    _report(parts, "check", ended, 0, "GPUs: ")
    ended = start(setting, label, [SHARED_MEMORY], [*train, "run.name=container"])
    _report(parts, f"{STEPS} steps as user {os.getuid()}", ended, 0)
    summary = runs / "container-001" / "summary.json"
    if summary.is_file():
        speed = json.loads(summary.read_text())["images_per_second"]
        parts.measured(f"images/s, {setting.gpus} ranks", round(speed, 1))
    small = "ARGS=train.max_steps=20 run.name=made eval.sets=[]"
    ended = start(setting, label, [SHARED_MEMORY], ["make", "train", "DATA=/data", small])
    _report(parts, "make train", ended, 0)
    what = "refused without --shm-size"
    if setting.gpus == 1:
        parts.add(what, "skipped", "needs 2 GPUs, got 1")
    else:
        _report(parts, what, start(setting, label, [], train), USAGE_CODE, "shared memory")


def start(setting: Setting, label: str, options: Sequence[str], command: Sequence[str]) -> Ended:
    """Run a command in a container with all GPUs and with the record set mounted at /data."""
    user = f"{os.getuid()}:{os.getgid()}"
    mounts = ["-v", f"{setting.records}:/data:ro", "-v", f"{setting.scratch / 'runs'}:/train/runs"]
    given = ["--gpus", "all", "--ulimit", "memlock=-1", "--user", user, "--label", label]
    docker = ["docker", "run", "--rm", "--init", *given, *options, *mounts]
    return run([*docker, setting.image, *command], limit_s=LIMIT_S)


def end_containers(label: str) -> None:
    """Kill and remove all containers that have this label."""
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label={label}"],
        capture_output=True,
        text=True,
        timeout=QUERY_TIMEOUT_S,
    )
    if names := listed.stdout.split():
        subprocess.run(["docker", "rm", "-f", *names], capture_output=True, timeout=QUERY_TIMEOUT_S)


def _report(parts: Parts, what: str, ended: Ended, code: int, expected: str = "") -> None:
    """Record whether a program ended with exit code `code` and printed the text `expected`."""
    sentence = next((line.strip() for line in ended.text.splitlines() if expected in line), "")
    right = ended.code == code and (not expected or bool(sentence))
    value = sentence if expected else ended.last_line()
    wanted = f" and print {expected!r}" if expected else ""
    wrong = (
        f"the program must end with exit code {code}{wanted}, got exit code {ended.code}; "
        f"last line: {ended.last_line()}"
    )
    parts.require(what, right, f"code {ended.code}, {value}", wrong)

# SPDX-License-Identifier: Apache-2.0
"""Parse a Dockerfile, and run its set-up steps on a simulated bare machine."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.launch.environment.bare_machine import ROOT, SOURCES, BareMachine

SET_UP = re.compile(r"\bmake |setup\.sh|pending|gpu_check|\.stamp-|-m ops\b")


@dataclass
class Stage:
    """Stage of a Dockerfile: its base and its steps, (instruction, argument)."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Return the ARGs before the first stage with their defaults, and the stages."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    arguments, stages = {}, []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            rest = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest)
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif word == "ARG" and not stages:
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif word:
            stages[-1].steps.append((word, rest.strip()))
    return arguments, stages


def steps_to(stages: list[Stage], target: str) -> list[tuple[str, str]]:
    """Return the steps of a stage after those of its bases."""
    named = {stage.name: stage for stage in stages}
    stage = named[target]
    before = steps_to(stages, stage.base) if stage.base in named else []
    return before + stage.steps


def variables(stages: list[Stage], target: str) -> dict[str, str]:
    """Return the environment variables of a stage."""
    found: dict[str, str] = {}
    for word, rest in steps_to(stages, target):
        if word == "ENV":
            found |= {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|\S+)', rest)}
    return found


def build(path: Path, target: str, folder: Path) -> BareMachine:
    """Run the set-up steps of a target; return the resulting machine.

    It skips system packages, commands of a RUN that are not part of the set-up, and PATH.
    """
    _, stages = read(path)
    steps = steps_to(stages, target)
    copies = [rest.removeprefix("--from=").split() for _, rest in steps if "--from=" in rest]
    for (
        origin,
        *_,
    ) in copies:  # first, because all machines use the same path, as all images use /train
        build(path, origin, folder).folder.rename(folder / origin)
    machine = BareMachine(folder / "image", sources=())
    machine.no_compilers()
    for word, rest in steps:
        if word == "COPY" and rest.startswith("--from="):
            origin, source, copied = copies.pop(0)
            place = folder / origin / "train" / Path(source).relative_to("/train")
            shutil.copytree(place, machine.train / copied)
        elif word == "COPY":
            *copied, _ = rest.split()
            for name in SOURCES if copied == ["."] else copied:
                machine.copy(name)
        elif word == "RUN":
            if re.search(r"install .*\bg\+\+", rest):
                machine.compilers()
            for venv in re.findall(r"-m venv .*?(\S*venv\S*)", rest):
                machine.done(f"python3.11 -m venv {venv}")
            parts = [part for part in rest.split("&&") if SET_UP.search(part)]
            parts = [part for part in parts if "apt-get" not in part and "LD_LIBRARY" not in part]
            if parts:
                done = machine.run("&&".join(parts))
                assert done.returncode == 0, (parts, done.stdout, done.stderr)
    machine.variables |= {k: v for k, v in variables(stages, target).items() if k != "PATH"}
    return machine


GPU, CPU = ROOT / "Dockerfile", ROOT / "docker" / "Dockerfile.cpu"

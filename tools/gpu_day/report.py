# SPDX-License-Identifier: Apache-2.0
"""Step 9: the last table of docs/gpu.md, with what the day has measured in it.

``python -m tools.gpu_day.report OUT`` prints it of results that are there.  Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tools.gpu_day.day import LINES, LOGS, text
from tools.gpu_day.results import Parts, read_lines

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

REPORT = "report.md"


class Claim(NamedTuple):
    """A row of docs/gpu.md that is untested, and the step that tests it."""

    what: str
    step: int
    parts: tuple[str, ...] = ()
    """Beginnings of the names of the parts that count; none: all of the step's."""


CLAIMS = (
    Claim("driver, CUDA libraries, MXNet and a training step on a GPU", 1),
    Claim(
        "each MXNet operator of nets and heads, GPU against CPU: value and gradient",
        2,
        ("operators",),
    ),
    Claim("PReLU on a GPU: its forms agree, and what each costs", 2, ("PReLU",)),
    Claim("hand-over of batches from DALI to MXNet while a net trains", 2, ("hand-over",)),
    Claim(
        "DALI on a GPU, each decode mode and augmentation: pixels against the CPU's", 3, ("pixels",)
    ),
    Claim("damaged JPEGs on a GPU: named by key, or silent", 3, ("damaged",)),
    Claim("images/s of each decode mode", 3, ("images/s",)),
    Claim("fused operators for GPUs (`run.operators=native`): numbers and speed", 4),
    Claim("losses of a run on a GPU beside the CPU's; fusion and TF32 on and off", 5, ("losses",)),
    Claim(
        "a checkpoint of a GPU resumed on the CPU and back",
        5,
        ("checkpoint", "verification", "resumed"),
    ),
    Claim(
        "NCCL between GPUs, and through the host's memory: two ranks equal one", 6, ("equivalence",)
    ),
    Claim("faults, signals and ends of ranks on GPUs", 6, ("fault", "SIGTERM", "SIGKILL", "ends")),
    Claim("all GPUs of a host: images/s, memory, contexts, decode modes", 7),
    Claim("the GPU image with `--gpus all`", 8),
)


def table(lines: Mapping[int, dict[str, Any]]) -> list[str]:
    """Return the rows of the table, in Markdown.

    Parameters
    ----------
    lines
        The line of each step by its number, as ``results.read_lines`` gives them.
    """
    rows = [f"| {claim.what} | {_cell(state(claim, lines))} |" for claim in CLAIMS]
    return ["| | state |", "|---|---|", *rows]


def state(claim: Claim, lines: Mapping[int, dict[str, Any]]) -> str:
    """Return what a day says of a claim: measured, untested or failed, with value and reason."""
    line = lines.get(claim.step)
    if line is None:
        return "untested: the step was not done"
    if not line.get("gpus"):
        kind = "untested on a GPU; rehearsed with the CPU"
    else:
        kind = f"measured {line['time'][:10]}"
    found: dict[str, dict[str, Any]] = {
        key: {w: v for w, v in line.get(key, {}).items() if w.startswith(claim.parts or "")}
        for key in ("measured", "failed", "skipped")
    }
    log = f"; log: {line.get('log', 'none')}"
    if found["failed"]:
        return "**failed**: " + _said(found["failed"]) + log
    if found["measured"]:
        skipped = f"; untested: {_said(found['skipped'])}" if found["skipped"] else ""
        return f"{kind}: {_said(found['measured'])}{skipped}"
    if line["state"] == "failed":  # before it came to this
        return f"**failed**: {line['value']}{log}"
    return f"untested, {line['value'] if line['state'] == 'skipped' else _said(found['skipped'])}"


def machine(lines: Mapping[int, dict[str, Any]]) -> str:
    """Return what was measured on: date, GPUs, driver, commit."""
    facts = {**lines.get(0, {}).get("measured", {})}
    host, gpus = facts.get("host", {}), facts.get("GPUs and driver")
    date = next(iter(lines.values()), {}).get("time", "no date")[:10]
    named = text(gpus) if gpus else "no GPU: rehearsed with the CPU"
    cpu, commit = (host.get(key, "not known") for key in ("cpu", "commit"))
    return f"{date}, {named}; CPU {cpu}, commit {commit}"


def failures(lines: Mapping[int, dict[str, Any]]) -> list[str]:
    """Return a line for each step that failed, with its log."""
    return [
        f"- step {line['what']} failed: {line['value']}; log: {line.get('log', 'none')}"
        for line in lines.values()
        if line["state"] == "failed"
    ]


def render(lines: Mapping[int, dict[str, Any]]) -> str:
    """Return the whole report."""
    return "\n".join([f"Measured {machine(lines)}.", "", *table(lines), "", *failures(lines)])


def measure(setting: Setting, parts: Parts) -> None:
    """Write the report beside the logs of the day."""
    logs = setting.scratch.parent
    lines = read_lines(logs.parent / LINES)
    report = logs / REPORT
    report.write_text(render(lines) + "\n", encoding="utf-8")
    counts = {
        s: sum(x["state"] == s for x in lines.values()) for s in ("measured", "failed", "skipped")
    }
    parts.measured("report", {"file": str(report), **counts})


def _said(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{what}: {text(value)}" for what, value in values.items())


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "/").split())


def main(argv: Sequence[str]) -> int:
    """Print the report of a folder of results."""
    folder = Path(argv[0] if argv else "results")
    try:
        print(render(read_lines(folder / LINES)))
    except OSError as error:
        print(
            f"report: there are no results, got {error.strerror} for {folder / LINES}; call "
            "`make gpu-day`",
            file=sys.stderr,
        )
        return 2
    return 0


__all__ = ["CLAIMS", "LOGS", "REPORT", "Claim", "main", "measure", "render", "state", "table"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Write a report of the GPU measurements: the last table of docs/gpu.md with measured values.

The report is step 9 of `tools.gpu_day`.  ``python -m tools.gpu_day.report OUT`` prints the report
of earlier measurements.  The module needs only the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tools.gpu_day.day import LINES, LOGS, format_value
from tools.gpu_day.results import Parts, read_lines

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

REPORT = "report.md"


class Claim(NamedTuple):
    """Row of the last table of docs/gpu.md: a claim, and the step that tests the claim."""

    what: str
    step: int
    parts: tuple[str, ...] = ()
    """Prefixes of the names of the parts that test the claim; empty means all parts of the step."""


CLAIMS = (
    Claim("driver, CUDA libraries, MXNet and a training step on a GPU", 1),
    Claim(
        "values and gradients of each MXNet operator of nets and heads: GPU compared with CPU",
        2,
        ("operators",),
    ),
    Claim("implementations of PReLU on a GPU: equal results, and time of each", 2, ("PReLU",)),
    Claim("transfer of batches from DALI to MXNet while a net trains", 2, ("hand-over",)),
    Claim(
        "pixels of each decode mode and augmentation: DALI on a GPU compared with DALI on the CPU",
        3,
        ("pixels",),
    ),
    Claim("damaged JPEGs on a GPU: whether the error names the image", 3, ("damaged",)),
    Claim("images/s of each decode mode", 3, ("images/s",)),
    Claim("fused operators for GPUs (`run.operators=native`): results and speed", 4),
    Claim(
        "training losses on a GPU compared with the CPU, with fusion and TF32 on and off",
        5,
        ("losses",),
    ),
    Claim(
        "a training run that starts on a GPU, resumes on the CPU, and resumes on the GPU",
        5,
        ("checkpoint", "verification", "resumed"),
    ),
    Claim(
        "two ranks on GPUs train the same weights as one rank, with NCCL and through host memory",
        6,
        ("equivalence",),
    ),
    Claim(
        "two ranks on GPUs end together after a fault, a signal or the last step",
        6,
        ("fault", "SIGTERM", "SIGKILL", "ends"),
    ),
    Claim("training on all GPUs of a host: images/s, memory, CUDA contexts, decode modes", 7),
    Claim("the GPU image with `--gpus all`", 8),
)


def table(lines: Mapping[int, dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table with each claim and its state.

    Parameters
    ----------
    lines
        Result line of each step by step number, from ``results.read_lines``.
    """
    rows = [f"| {claim.what} | {_cell(state(claim, lines))} |" for claim in CLAIMS]
    return ["| | state |", "|---|---|", *rows]


def state(claim: Claim, lines: Mapping[int, dict[str, Any]]) -> str:
    """Return the state of a claim (measured, untested or failed) with its measured values."""
    line = lines.get(claim.step)
    if line is None:
        return "untested: the step did not run"
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
        return "**failed**: " + _format(found["failed"]) + log
    if found["measured"]:
        skipped = f"; untested: {_format(found['skipped'])}" if found["skipped"] else ""
        return f"{kind}: {_format(found['measured'])}{skipped}"
    # The step has failed before it could test this claim.
    if line["state"] == "failed":
        return f"**failed**: {line['value']}{log}"
    return f"untested, {line['value'] if line['state'] == 'skipped' else _format(found['skipped'])}"


def machine(lines: Mapping[int, dict[str, Any]]) -> str:
    """Return a text that states the date of the measurements, GPUs, driver, CPU and commit."""
    facts = {**lines.get(0, {}).get("measured", {})}
    host, gpus = facts.get("host", {}), facts.get("GPUs and driver")
    date = next(iter(lines.values()), {}).get("time", "no date")[:10]
    named = format_value(gpus) if gpus else "no GPU: rehearsed with the CPU"
    cpu, commit = (host.get(key, "unknown") for key in ("cpu", "commit"))
    return f"{date}, {named}; CPU {cpu}, commit {commit}"


def failures(lines: Mapping[int, dict[str, Any]]) -> list[str]:
    """Return one line per failed step, with the path of its log."""
    return [
        f"- step {line['what']} failed: {line['value']}; log: {line.get('log', 'none')}"
        for line in lines.values()
        if line["state"] == "failed"
    ]


def render(lines: Mapping[int, dict[str, Any]]) -> str:
    """Return the report in Markdown: the machine, the table and the failed steps."""
    return "\n".join([f"Measured {machine(lines)}.", "", *table(lines), "", *failures(lines)])


def measure(setting: Setting, parts: Parts) -> None:
    """Write the report of the measurements to a file in the folder of the logs."""
    logs = setting.scratch.parent
    lines = read_lines(logs.parent / LINES)
    report = logs / REPORT
    report.write_text(render(lines) + "\n", encoding="utf-8")
    counts = {
        s: sum(x["state"] == s for x in lines.values()) for s in ("measured", "failed", "skipped")
    }
    parts.measured("report", {"file": str(report), **counts})


def _format(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{what}: {format_value(value)}" for what, value in values.items())


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "/").split())


def main(argv: Sequence[str]) -> int:
    """Print the report of earlier measurements from their results folder; return the exit code."""
    folder = Path(argv[0] if argv else "results")
    try:
        print(render(read_lines(folder / LINES)))
    except OSError as error:
        print(
            f"report: the results cannot be read, got {error.strerror} for {folder / LINES}; run "
            "`make gpu-day` first",
            file=sys.stderr,
        )
        return 2
    return 0


__all__ = ["CLAIMS", "LOGS", "REPORT", "Claim", "main", "measure", "render", "state", "table"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

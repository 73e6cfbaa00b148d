# SPDX-License-Identifier: Apache-2.0
"""Write a model card: a Markdown file that states what an exported model is and how to use it.

The card states only facts of the model and of its training run.  For an unknown fact it says
"not stated".

The headings follow Mitchell et al., "Model Cards for Model Reporting", arXiv:1810.03993, section 4.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from atomic_write import atomic_write
from interchange.model import InterchangeError

if TYPE_CHECKING:
    from interchange.model import StoredModel

UNKNOWN = "not stated"
SUFFIX = ".md"
"""The card of a file NAME is NAME.md."""
MAX_RUN_FILE_BYTES = 2**24
_INPUT_ROWS = ("image_size", "colour_order", "layout", "value_range", "scaling", "output")
_RECIPE_SECTIONS = ("net", "head", "optim", "train")
_RECIPE_OF_DATA = (
    "batch_size images_filter mirror color_jitter jpeg_quality cut_out shift grey".split()
)
_MEASURES = (
    ("accuracy", "accuracy"),
    ("accuracy_std", "standard deviation over the folds"),
    ("tar_at_far_1e-3", "true accept rate at a false accept rate of 0.001"),
    ("pairs", "pairs"),
)


def write_model_card(
    model: StoredModel,
    exported: str | os.PathLike[str],
    contract: Mapping[str, str],
    *,
    licence: str | None = None,
    commit: str | None = None,
) -> Path:
    """Write the model card of an exported model beside its file, and return the path of the card.

    Parameters
    ----------
    model
        Model that was exported.  For a checkpoint of a run, the card also states facts from
        config.yaml and summary.json of the run.
    exported
        File or symbol prefix that was written.
    contract
        Input and output of the file, for example {"image_size": "112x112", "colour_order": "RGB"}.
    licence
        Licence of the weights; for None, the card asks its reader to fill in the licence.
    commit
        Git commit of this program; None if it is unknown.

    Raises
    ------
    InterchangeError
        If the card cannot be written.
    """
    card = Path(f"{os.fspath(exported)}{SUFFIX}")
    text = model_card(model, Path(exported).name, contract, licence=licence, commit=commit)
    try:
        with atomic_write(card, "w") as file:
            file.write(text)
    except OSError as error:
        raise InterchangeError(
            f"{card}: the model card cannot be written, got {error.strerror or error}; name a file "
            "in a folder that exists, on a disk with free space"
        ) from None
    return card


def model_card(
    model: StoredModel,
    name: str,
    contract: Mapping[str, str],
    *,
    licence: str | None = None,
    commit: str | None = None,
) -> str:
    """Return the text of a model card with the title ``name``.

    The other parameters are those of `write_model_card`.
    """
    config, summary = _run_files(model)
    parameters = sum(int(values.size) for values in model.parameters.values())
    net = {key: value for key, value in model.net.items() if key != "symbol"}
    threshold = UNKNOWN if model.threshold is None else f"{model.threshold:.4f}"
    sections = {
        "Model": {
            **{f"net.{key}": value for key, value in net.items()},
            "parameters": f"{parameters:,}",
            "source": f"{Path(model.source).name} ({model.kind})",
            "commit of the exporter": commit or UNKNOWN,
            "licence of the weights": licence or "not stated; fill in before you pass the file on",
        },
        "Input and output": {
            **{key: contract.get(key, UNKNOWN) for key in _INPUT_ROWS},
            "threshold": f"{threshold} (least cosine at which two images count as one person)"
            if model.threshold is not None
            else UNKNOWN,
        },
        "Data": _data(config),
        "Recipe": _recipe(config, summary),
    }
    parts = [f"# {name}"]
    for title, rows in sections.items():
        parts.append(f"## {title}\n\n{_table(('property', 'value'), rows.items())}")
    parts.append(f"## Verification\n\n{_verification(summary)}")
    notices = "\n".join(f"- {_cell(notice)}" for notice in model.notices) or "None."
    parts.append(f"## Conversions and notices\n\n{notices}")
    return "\n\n".join(parts) + "\n"


def _run_files(model: StoredModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration and the summary of the run of a checkpoint; {} for a missing file.

    The summary describes the last step of the run.  For a checkpoint of another step, {} replaces
    the summary.
    """
    source = Path(model.source)
    if model.kind != "checkpoint":
        return {}, {}
    folders = (source, source.parent, source.parent.parent)
    run = next((folder for folder in folders if (folder / "config.yaml").is_file()), None)
    if run is None:
        return {}, {}
    config, summary = _read(run / "config.yaml"), _read(run / "summary.json")
    step = source.name.removeprefix("step-")
    if step.isdigit() and summary.get("steps") != int(step):
        summary = {}
    return config, summary


def _read(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file; return {} if it is missing, damaged or too large."""
    try:
        if path.stat().st_size > MAX_RUN_FILE_BYTES:
            return {}
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
    data = _section(config, "data")
    records = data.get("records", UNKNOWN)
    paths = records if isinstance(records, list) else [records]
    return {
        # The card states only the last part of a path.  The rest is useless on another machine, and
        # may contain the name of the user.
        "records": ", ".join(Path(str(path)).name or str(path) for path in paths),
        "origin, consent and licence of the images": UNKNOWN,
    }


def _recipe(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = {
        f"{section}.{key}": Path(value).name if isinstance(value, str) else value
        for section in _RECIPE_SECTIONS
        for key, value in _section(config, section).items()
        if value not in (None, "")
    }
    data = _section(config, "data")
    rows |= {f"data.{key}": data[key] for key in _RECIPE_OF_DATA if key in data}
    if "seed" in _section(config, "run"):
        rows["run.seed"] = _section(config, "run")["seed"]
    for key in ("status", "steps", "epochs", "ranks", "final_loss"):
        if key in summary:
            rows[key] = summary[key]
    return rows or {"recipe": UNKNOWN}


def _verification(summary: Mapping[str, Any]) -> str:
    """Return the table of the verification results of the final weights."""
    results = _section(summary, "verification")
    rows = [
        (name, *(_number(result.get(key)) for key, _ in _MEASURES))
        for name, result in results.items()
        if isinstance(result, dict)
    ]
    if not rows:
        return f"Verification results: {UNKNOWN}."
    return _table(("set", *(title for _, title in _MEASURES)), rows)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return UNKNOWN if value is None else str(value)


def _table(titles: tuple[str, ...], rows: Any) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    """Convert a value to text for a table cell: one line, at most 500 characters, | escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")[:500]

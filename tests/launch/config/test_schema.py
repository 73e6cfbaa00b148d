# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema: it says of a file what the loader says; configs/schema.json is up to date."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import pytest

from heads import HEADS
from launch.config.configuration import ConfigError, build_config
from launch.config.schema import schema_text
from launch.config.yaml_files import CONFIGS, config_names, read_yaml
from nets import NETS
from ranges import Within

TYPES = {
    "null": type(None),
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value fits the part of JSON Schema that ours uses."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kinds and not any(
        isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
        for kind in kinds
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if is_number and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not value <= schema.get("exclusiveMinimum", value - 1)
        and not value >= schema.get("exclusiveMaximum", value + 1)
    ):
        return False
    if "anyOf" in schema and not any(fits(value, each) for each in schema["anyOf"]):
        return False
    for case in schema.get("allOf", []):
        if fits(value, case["if"]) and not fits(value, case["then"]):
            return False
    if isinstance(value, list):
        return all(fits(entry, schema.get("items", {})) for entry in value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        if not set(schema.get("required", [])) <= set(value):
            return False
        if not schema.get("additionalProperties", True) and not set(value) <= set(properties):
            return False
        return all(fits(value[key], properties.get(key, {})) for key in value)
    return True


def small(*, width: Annotated[float, Within(0, 8, open_low=True)] = 1.0, depth: int = 18):
    """A net."""


def half(*, share: Annotated[float, Within(0, 1, open_high=True)] = 0.5):
    """A head."""


BUILDERS = {"small": small}, {"half": half}
GOOD = {"data": {"records": "a"}, "net": {"name": "small"}, "head": {"name": "half"}}
GOOD["train"] = {"epochs": 1}


def test_the_file_is_up_to_date():
    kept = (CONFIGS / "schema.json").read_text()
    assert kept == schema_text(
        NETS, HEADS
    ), "python run_train.py --print-schema > configs/schema.json"


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_fits(name):
    assert fits(read_yaml(CONFIGS / name), json.loads(schema_text(NETS, HEADS)))


@pytest.mark.parametrize(
    ("section", "key", "value", "right"),
    [
        ("run", "seed", 2**31 - 1, True),
        ("run", "seed", 2**31, False),
        ("run", "seed", 1.5, False),
        ("run", "resume", False, True),
        ("run", "resume", 1, False),
        ("run", "nmae", "x", False),
        ("data", "records", ["a", "b"], True),
        ("data", "records", [1], False),
        ("data", "reader", "blocks", True),
        ("data", "reader", "block", False),
        ("data", "jpeg_quality", [2, 20], True),
        ("data", "jpeg_quality", [0, 20], False),
        ("data", "batch_size", True, False),
        ("optim", "lr", 1, True),
        ("optim", "lr", 0, False),
        ("optim", "momentum", 1, False),
        ("optim", "warmup", "5 %", True),
        ("optim", "warmup", 0, True),
        ("optim", "warmup", "0", True),
        ("optim", "warmup", "5 steps", False),
        ("optim", "milestones", ["1 epochs", "2.5 epochs"], True),
        ("optim", "milestones", ["1 epochs", 7], False),
        ("net", "width", 8, True),
        ("net", "width", 0, False),
        ("net", "depth", 18.5, False),
        ("net", "share", 0.5, False),
        ("head", "share", 0, True),
        ("head", "share", 1, False),
        ("net", "name", "big", False),
        ("rnu", "seed", 1, False),
    ],
)
def test_schema_and_loader_agree(section, key, value, right):
    raw = {**GOOD, section: {**GOOD.get(section, {}), key: value}}
    assert fits(raw, json.loads(schema_text(*BUILDERS))) == right
    try:
        build_config(raw, *BUILDERS)
        accepted = True
    except ConfigError:
        accepted = False
    assert accepted == right


def test_what_the_loader_asks_for_is_required():
    for section in ("net", "head"):
        raw = {name: values for name, values in GOOD.items() if name != section}
        assert not fits(raw, json.loads(schema_text(*BUILDERS)))
        assert not fits({**raw, section: {}}, json.loads(schema_text(*BUILDERS)))

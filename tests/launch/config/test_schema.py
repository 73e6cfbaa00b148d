# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema accepts the same files as the loader, and configs/schema.json is up to date."""

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
    """Return whether a value matches a schema of the keywords that `schema_text` uses."""
    return (
        _type_fits(value, schema.get("type", []))
        and ("enum" not in schema or value in schema["enum"])
        and ("const" not in schema or value == schema["const"])
        and ("pattern" not in schema or re.search(schema["pattern"], value) is not None)
        and _range_fits(value, schema)
        and ("anyOf" not in schema or any(fits(value, each) for each in schema["anyOf"]))
        and all(
            fits(value, case["then"]) for case in schema.get("allOf", []) if fits(value, case["if"])
        )
        and _children_fit(value, schema)
    )


def _type_fits(value: Any, kinds: str | list[str]) -> bool:
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return not kinds or any(
        isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
        for kind in kinds
    )


def _range_fits(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not value <= schema.get("exclusiveMinimum", value - 1)
        and not value >= schema.get("exclusiveMaximum", value + 1)
    )


def _children_fit(value: Any, schema: dict[str, Any]) -> bool:
    if isinstance(value, list):
        return all(fits(entry, schema.get("items", {})) for entry in value)
    if not isinstance(value, dict):
        return True
    properties = schema.get("properties", {})
    if not set(schema.get("required", [])) <= set(value):
        return False
    if not schema.get("additionalProperties", True) and not set(value) <= set(properties):
        return False
    return all(fits(value[key], properties.get(key, {})) for key in value)


def small(*, width: Annotated[float, Within(0, 8, open_low=True)] = 1.0, depth: int = 18):
    """A net."""


def half(*, share: Annotated[float, Within(0, 1, open_high=True)] = 0.5):
    """A head."""


BUILDERS = {"small": small}, {"half": half}
GOOD = {"data": {"records": "a"}, "net": {"name": "small"}, "head": {"name": "half"}}
GOOD["train"] = {"epochs": 1}


def test_schema_json_is_up_to_date():
    current = (CONFIGS / "schema.json").read_text() == schema_text(NETS, HEADS)
    assert current, "python run_train.py --print-schema > configs/schema.json"


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_matches_the_schema(name):
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
        ("optim", "warmup", "5e3 steps", True),
        ("optim", "warmup", "5 batches", False),
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


def test_the_schema_requires_net_and_head():
    for section in ("net", "head"):
        raw = {name: values for name, values in GOOD.items() if name != section}
        assert not fits(raw, json.loads(schema_text(*BUILDERS)))
        assert not fits({**raw, section: {}}, json.loads(schema_text(*BUILDERS)))


def test_a_pretrained_model_can_replace_the_net():
    raw = {name: values for name, values in GOOD.items() if name != "net"}
    for pretrained, right in (("runs/a-001", True), ("", False)):
        train = {**GOOD["train"], "pretrained": pretrained}
        for net in ({}, {"net": {}}):
            assert fits({**raw, "train": train, **net}, json.loads(schema_text(*BUILDERS))) == right

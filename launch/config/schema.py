# SPDX-License-Identifier: Apache-2.0
"""Generate the JSON Schema of the YAML files from the declarations of the settings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, get_type_hints

from launch.config.configuration import GRAPH_NET, Choice, Config, to_plain
from launch.config.docstrings import field_docs, parameter_docs, summary
from launch.config.duration import PATTERN, Duration
from launch.config.section_settings import section_settings
from ranges import Builders, Setting, settings

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema_text(nets: Builders, heads: Builders) -> str:
    """Return the text of configs/schema.json, with which editors complete and check YAML files."""
    properties: dict[str, Any] = {
        "notes": {"description": "Package versions and Git commit of a run."}
    }
    for name, kind in get_type_hints(Config).items():
        if kind is Choice:
            properties[name] = _net(nets) if name == "net" else _choice(heads, ["name"])
        else:
            properties[name] = _section(kind)
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of run_train.py",
        "type": "object",
        "required": ["head"],
        "anyOf": [_with_key("net", "name"), _with_key("train", "pretrained")],
        "properties": properties,
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=1) + "\n"


def _with_key(section: str, key: str) -> dict[str, Any]:
    """Return a schema that requires ``key`` in ``section`` and refuses an empty text as value."""
    named = {"required": [key], "properties": {key: {"type": "string", "pattern": "."}}}
    return {"required": [section], "properties": {section: {"type": "object", **named}}}


def _section(kind: type) -> dict[str, Any]:
    docs = field_docs(kind)
    return {
        "description": summary(kind),
        "type": ["object", "null"],
        "properties": {
            name: _described(each, docs.get(name, ""))
            for name, each in section_settings(kind).items()
        },
        "additionalProperties": False,
    }


def _net(nets: Builders) -> dict[str, Any]:
    """Return the schema of the section ``net``, including the net of a model file (GRAPH_NET)."""
    schema = _choice(nets)
    keys = {"name": {}, "embedding_size": {"type": "integer"}, "symbol": {"type": "string"}}
    then = {
        "description": "Graph of the model file that train.pretrained names.",
        "properties": keys,
        "additionalProperties": False,
    }
    schema["properties"]["name"]["enum"].append(GRAPH_NET)
    chosen = {"properties": {"name": {"const": GRAPH_NET}}, "required": ["name"]}
    schema["allOf"].append({"if": chosen, "then": then})
    return schema


def _choice(builders: Builders, required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema of the section ``net`` or ``head``, whose keys depend on ``name``."""
    cases = []
    for name, builder in builders.items():
        docs = parameter_docs(builder)
        keys = {k: _described(each, docs.get(k, "")) for k, each in settings(builder).items()}
        then = {
            "description": summary(builder),
            "properties": {"name": {}, **keys},
            "additionalProperties": False,
        }
        chosen = {"properties": {"name": {"const": name}}, "required": ["name"]}
        cases.append({"if": chosen, "then": then})
    names = {"name": {"enum": list(builders)}}
    return {"type": "object", "required": list(required), "properties": names, "allOf": cases}


def _described(each: Setting, text: str) -> dict[str, Any]:
    found = _value(each)
    if text:
        found["description"] = text
    return {**found, "default": to_plain(each.default)}


def _value(each: Setting) -> dict[str, Any]:
    if each.choices:
        return {"enum": list(each.choices)}
    if each.entry:  # YAML files may contain one entry in place of a list
        entry = _value(each.entry)
        return {"anyOf": [{"type": "array", "items": entry}, entry]}
    if each.mapped:
        return {"type": "object", "additionalProperties": _value(each.mapped)}
    if each.kind is Duration:
        return {"anyOf": [{"const": 0}, {"type": "string", "pattern": f"^(0|{PATTERN})$"}]}
    found: dict[str, Any] = {"type": TYPES[each.kind]}
    bounds = each.range
    if bounds and math.isfinite(bounds.low):
        found["exclusiveMinimum" if bounds.open_low else "minimum"] = bounds.low
    if bounds and math.isfinite(bounds.high):
        found["exclusiveMaximum" if bounds.open_high else "maximum"] = bounds.high
    return found

# SPDX-License-Identifier: Apache-2.0
"""Every configuration in configs/ loads, builds, and says what it is for."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from heads import HEADS, build_head
from launch.cli import load_config
from launch.config import build_config, read_yaml
from nets import NETS, build_net

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
SIGNATURES = tuple({n: inspect.signature(b) for n, b in d.items()} for d in (NETS, HEADS))


def opening(path: Path) -> list[str]:
    """Return the comment lines at the head of a file."""
    lines = path.read_text().splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]


def overrides(path: Path) -> list[str]:
    """Return the section.key=value arguments of the command that the file's head names."""
    return re.findall(r"(?<=\s)[a-z]+\.[a-z_]+=\S+", " ".join(opening(path)))


def over_ranks(rows, statistic):
    """Stand for the ranks, as run_train does."""
    return statistic(rows)


def test_there_are_configurations():
    assert "demo.yaml" in {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_configuration_loads_and_builds(path, monkeypatch, tmp_path):
    monkeypatch.setenv("FACES_DIR", str(tmp_path))
    config = load_config(["--cfg", str(path), *overrides(path)], *SIGNATURES)
    assert config.run.name == path.stem
    net = build_net(config.net.name, **config.net.options)
    assert net.collect_params()
    size = config.net.options["embedding_size"]
    head = build_head(config.head.name, 10, size, over_ranks, **config.head.options)
    # Losses on pairs learn nothing of their own.
    shapes = [p.shape for p in head.collect_params().values()]
    centres = 10 * config.head.options.get("sub_centers", 1)
    assert not shapes or (centres, size) in shapes


@pytest.mark.parametrize("name", HEADS)
def test_every_loss_is_chosen_by_its_name(name):
    raw = read_yaml(CONFIGS / "demo.yaml")
    raw["head"] = {"name": name}
    config = build_config(raw, *SIGNATURES, where="demo.yaml")
    schema = inspect.signature(HEADS[name]).parameters.values()
    assert set(config.head.options) == {p.name for p in schema if p.kind is p.KEYWORD_ONLY}
    # What all ranks compare, and the run keeps.
    assert json.loads(json.dumps(config.to_dict()))["head"] == {
        "name": name,
        **config.head.options,
    }
    assert yaml.safe_load(yaml.safe_dump(config.to_dict())) == config.to_dict()
    build_head(name, 10, 4, over_ranks, **config.head.options)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_first_lines_say_what_how_and_what_to_expect(path):
    head, name = opening(path), path.relative_to(CONFIGS).as_posix()
    assert len(head) >= 3, f"{name}: first lines must say what it trains, how, and the result"
    assert any(
        f"--cfg {name}" in t or f"CFG={name}" in t or "make " in t for t in head
    ), f"{name}: the command that runs it is missing from its first lines"
    assert any(
        "expected" in line.lower() for line in head
    ), f"{name}: what to expect is missing from its first lines"

# SPDX-License-Identifier: Apache-2.0
"""Every configuration in configs/ loads, builds a net and a head, and documents its purpose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from heads import HEADS, build_head
from launch.config.cli import load_config
from launch.config.configuration import build_config
from launch.config.yaml_files import read_yaml
from nets import NETS, build_net
from pipeline.decode.dali import PATHS
from ranges import settings
from tests.parallel.ranks import run, training
from tests.parallel.test_refusals import check_refusal

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def opening(path: Path) -> list[str]:
    """Return the comment lines at the start of a file."""
    lines = path.read_text().splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]


def overrides(path: Path) -> list[str]:
    """Return the section.key=value arguments in the first comment lines of a file."""
    return re.findall(r"(?<=\s)[a-z]+\.[a-z_]+=\S+", " ".join(opening(path)))


def over_ranks(rows, statistic):
    """Reduce the rows of a single rank."""
    return statistic(rows)


def test_examples_need_no_quotes_in_zsh_or_have_them():
    """zsh refuses a command with an unquoted [ ] that matches no file."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "docker" / "README.md"]
    texts += [ROOT / "Makefile", ROOT / "launch" / "config" / "help.py", *FILES]
    examples = [
        (path.name, example)
        for path in texts
        if path.name != "CHANGELOG.md"
        for example in re.findall(r"(?:[\s`]|^)('?[a-z]+\.[a-z_]+=[^`\n]*)", path.read_text(), re.M)
    ]
    assert len(examples) > 20
    assert [each for each in examples if re.search(r"(?<!')\b[a-z]+\.[a-z_]+=\[", each[1])] == []
    assert not [each for each in examples if re.search(r"eval\.sets=\[\S*\]", each[1])]


def test_demo_yaml_exists():
    assert "demo.yaml" in {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_a_configuration_loads_and_builds(path, monkeypatch, tmp_path):
    monkeypatch.setenv("FACES_DIR", str(tmp_path))
    config = load_config(["--cfg", str(path), *overrides(path)], NETS, HEADS)
    assert config.run.name == path.stem
    size = 128
    if config.net.name or not config.train.pretrained:  # else the net is that of the model
        net = build_net(config.net.name, **config.net.options)
        assert net.collect_params()
        size = config.net.options["embedding_size"]
    head = build_head(config.head.name, 10, size, over_ranks, **config.head.options)
    # Losses on pairs have no parameters.
    shapes = [p.shape for p in head.collect_params().values()]
    centres = 10 * config.head.options.get("sub_centers", 1)
    assert not shapes or (centres, size) in shapes


@pytest.mark.parametrize("name", HEADS)
def test_every_loss_can_be_selected_by_name(name):
    raw = read_yaml(CONFIGS / "demo.yaml")
    raw["head"] = {"name": name}
    config = build_config(raw, NETS, HEADS, where="demo.yaml")
    assert set(config.head.options) == set(settings(HEADS[name]))
    # All ranks compare these values, and config.yaml stores them.
    assert json.loads(json.dumps(config.to_dict()))["head"] == {
        "name": name,
        **config.head.options,
    }
    assert yaml.safe_load(yaml.safe_dump(config.to_dict())) == config.to_dict()
    build_head(name, 10, 4, over_ranks, **config.head.options)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_the_first_lines_contain_purpose_command_and_expected_result(path):
    head, name = opening(path), path.relative_to(CONFIGS).as_posix()
    assert (
        len(head) >= 3
    ), f"{name}: the first lines must contain purpose, command and expected result"
    assert any(
        f"--cfg {name}" in t or f"CFG={name}" in t or "make " in t for t in head
    ), f"{name}: the command is missing in the first lines"
    assert any(
        "expected" in line.lower() for line in head
    ), f"{name}: the expected result is missing in the first lines"


def test_two_overrides_select_dalis_pipeline():
    """mbf_arcface_dali.yaml equals mbf_arcface.yaml with the overrides in its first lines."""
    given = ["data.records=/set", "run.name=one"]
    named_overrides = [
        text for text in overrides(CONFIGS / "mbf_arcface.yaml") if "FOLDER" not in text
    ]
    assert named_overrides == ["data.reader=window", "data.decode=mixed"]
    base = load_config(["--cfg", "mbf_arcface.yaml", *named_overrides, *given], NETS, HEADS)
    named = load_config(["--cfg", "mbf_arcface_dali.yaml", *given], NETS, HEADS)
    assert base.to_dict() == named.to_dict()
    assert (named.data.reader, named.data.decode) == ("window", "mixed")


def test_dalis_pipeline_is_refused_on_the_cpu(tiny_records, tmp_path):
    places = [f"data.records={tiny_records}", f"run.dir={tmp_path / 'runs'}", "run.device=cpu"]
    refused = run(1, training(CONFIGS / "mbf_arcface_dali.yaml", *places))
    check_refusal(refused, r"data\.decode: 'mixed' requires a GPU, got none; use data\.decode=auto")
    assert not (tmp_path / "runs").exists()


def test_the_example_in_docs_matches_the_pipeline():
    document = (ROOT / "docs" / "gpu.md").read_text()
    shown = document.split("```python\n")[1].split("```")[0]
    assert len(shown.splitlines()) <= 15
    files = (ROOT / "pipeline" / "decode").glob("dali*.py")
    source = "\n".join(path.read_text() for path in files)
    names = re.findall(r"fn\.[a-z_.]+", shown)
    order = ["fn.readers.mxnet", "fn.decoders.image", "fn.crop_mirror_normalize"]
    assert [name for name in names if name in order] == order
    assert not [name for name in names if f"{name}(" not in source]
    mixed = PATHS["mixed"]
    assert f"hw_decoder_load={mixed.hw_decoder_load}" in shown
    assert f"hybrid_huffman_threshold={mixed.hybrid_huffman_threshold:_}" in shown

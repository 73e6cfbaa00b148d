# SPDX-License-Identifier: Apache-2.0
"""The command line: where a configuration is found and how overrides are put in."""

from __future__ import annotations

import inspect

import pytest

import launch.config.cli
from launch.config.cli import apply_overrides, find_config, load_config, parse_arguments
from launch.config.configuration import ConfigError


def net(*, width: float = 1.0, embedding_size: int = 128):
    """A net."""


def head(num_classes, embedding_size, *, m2: float = 0.5):
    """A head."""


NETS = {"net": inspect.signature(net)}
HEADS = {"head": inspect.signature(head)}
TEXT = """
data: {loader: synthetic, num_classes: 4}
net: {name: net}
head: {name: head}
train: {epochs: 1}
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "more").mkdir(parents=True)
    (folder / "one.yaml").write_text(TEXT)
    (folder / "more" / "two.yaml").write_text(TEXT)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(launch.config.cli, "CONFIGS", folder)
    return folder


def test_a_path_goes_before_configs(configs, tmp_path):
    assert find_config("one.yaml") == configs / "one.yaml"
    (tmp_path / "work" / "one.yaml").write_text(TEXT)
    assert find_config("one.yaml").resolve() == tmp_path / "work" / "one.yaml"
    assert find_config("more/two.yaml") == configs / "more" / "two.yaml"


def test_a_path_in_the_home_folder(configs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    (tmp_path / "work" / "mine.yaml").write_text(TEXT)
    assert find_config("~/mine.yaml") == tmp_path / "work" / "mine.yaml"
    config = load_config(["--cfg=~/mine.yaml", "run.dir=~/runs"], NETS, HEADS)
    assert config.run.dir == str(tmp_path / "work" / "runs")
    with pytest.raises(
        ConfigError, match=r"^--cfg: the home folder of ~no-such-user-at-all cannot"
    ):
        find_config("~no-such-user-at-all/mine.yaml")


def test_an_unknown_file_lists_what_there_is(configs):
    with pytest.raises(ConfigError) as caught:
        find_config("three.yaml")
    assert str(caught.value) == (
        "--cfg: no such file, got 'three.yaml'; give a path or one of configs/: more/two.yaml, "
        "one.yaml"
    )
    assert find_config("more/two.yaml").is_file()  # the listed names can be given


def test_overrides_are_read_as_yaml(configs):
    overrides = [
        "data.batch_size=32",
        "optim.lr=0.5",
        "optim.milestones=[1 epochs, 2 epochs]",
        "train.pretrained=",
        "eval.sets=[a.bin, b.bin]",
        "run.resume=false",
    ]
    config = load_config(["--cfg", "one.yaml", *overrides], NETS, HEADS)
    assert config.data.batch_size == 32 and config.data.num_classes == 4
    assert config.optim.lr == 0.5
    assert [str(m) for m in config.optim.milestones] == ["1 epochs", "2 epochs"]
    assert config.train.pretrained == ""
    assert config.eval.sets == ["a.bin", "b.bin"]
    assert config.run.resume is False
    assert config.run.name == "one"
    assert load_config(["--cfg", "one.yaml", "run.name=x"], NETS, HEADS).run.name == "x"


def test_overrides_leave_the_file_as_it_was():
    raw = {"data": {"batch_size": 1}}
    assert apply_overrides(raw, ["data.batch_size=2", "run.seed=3"]) == {
        "data": {"batch_size": 2},
        "run": {"seed": 3},
    }
    assert raw == {"data": {"batch_size": 1}}


@pytest.mark.parametrize("text", ["lr=0.1", "optim.lr", "optim.=1", ".lr=1", "="])
def test_what_is_no_override(text):
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, [text])
    assert str(caught.value) == f"command line: expected section.key=value, got {text!r}"


def test_misspelt_overrides_and_numbers(configs):
    with pytest.raises(ConfigError) as caught:
        load_config(["--cfg", "one.yaml", "optim.lrr=1.0", "optim.lr=5e-4"], NETS, HEADS)
    assert str(caught.value).splitlines() == [
        "one.yaml: 2 problems",
        "  optim.lrr: unknown key; did you mean 'lr'?",
        "  optim.lr: expected float, got str '5e-4' (YAML needs a dot before the exponent: write "
        "5.0e-04)",
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--cgf", "one.yaml"], "the following arguments are required: --cfg"),
        (["--cfg", "one.yaml", "--lr", "1"], "unrecognized arguments: --lr"),
    ],
)
def test_faults_of_the_command_line_are_config_errors(configs, argv, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_arguments(argv)
    assert str(caught.value).startswith(f"command line: {sentence}")
    assert str(caught.value).endswith("; use --cfg NAME.yaml [section.key=value ...]")


def test_a_file_without_sections(configs):
    (configs / "one.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(["--cfg", "one.yaml"], NETS, HEADS)
    assert str(caught.value) == "one.yaml: expected sections with key: value lines, got [1, 2]"

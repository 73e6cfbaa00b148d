# SPDX-License-Identifier: Apache-2.0
"""The command line of run_train.py: overrides, errors and options that print text."""

from __future__ import annotations

import pytest
import yaml

import launch.config.yaml_files
from launch.config.cli import apply_overrides, load_config, parse_arguments, requested_text
from launch.config.configuration import ConfigError


def net(*, width: float = 1.0, embedding_size: int = 128):
    """A net."""


def head(num_classes, embedding_size, *, m2: float = 0.5):
    """A head."""


NETS = {"net": net}
HEADS = {"head": head}
TEXT = """
data: {loader: synthetic, num_classes: 4}
net: {name: net}
head: {name: head}
train: {epochs: 1}
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "one.yaml").write_text(TEXT)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(launch.config.yaml_files, "CONFIGS", folder)
    return folder


def test_overrides_are_parsed_as_yaml(configs):
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


def test_a_number_with_an_exponent_needs_no_dot(configs, tmp_path):
    overrides = ["optim.lr=1e-3", "train.max_images=5e6", "run.name=1e3", "optim.warmup=1e2 steps"]
    config = load_config(["--cfg", "one.yaml", *overrides], NETS, HEADS)
    assert config.optim.lr == 0.001 and config.train.max_images == 5_000_000
    assert config.run.name == "1e3" and str(config.optim.warmup) == "100 steps"
    (tmp_path / "mine.yaml").write_text(TEXT + "optim: {lr: 1e-3, weight_decay: 5E-4}\n")
    config = load_config(["--cfg", str(tmp_path / "mine.yaml")], NETS, HEADS)
    assert (config.optim.lr, config.optim.weight_decay) == (0.001, 0.0005)


def narrow(*, embedding_size: int = 128):
    """A net without a width."""


def plain(num_classes, embedding_size, *, scale: float = 64.0):
    """A head without a margin."""


NARROW = {"net": net, "narrow": narrow}
PLAIN = {"head": head, "plain": plain}


def test_a_name_on_the_command_line_drops_the_keys_that_it_does_not_have(configs, tmp_path):
    text = TEXT.replace("{name: net}", "{name: net, width: 0.5, embedding_size: 64}")
    (configs / "one.yaml").write_text(text.replace("{name: head}", "{name: head, m2: 0.2}"))
    argv = ["--cfg", "one.yaml", "net.name=narrow", "head.name=plain", "head.scale=3.0"]
    config = load_config(argv, NARROW, PLAIN)
    assert (config.net.name, config.net.options) == ("narrow", {"embedding_size": 64})
    assert (config.head.name, config.head.options) == ("plain", {"scale": 3.0})
    assert config.notices == (
        "net: narrow replaces net of one.yaml; dropped the keys that narrow does not have: "
        "width=0.5",
        "head: plain replaces head of one.yaml; dropped the keys that plain does not have: m2=0.2",
    )
    printed = requested_text([*argv, "--print-config"], NARROW, PLAIN)
    assert printed.startswith(f"# {config.notices[0]}\n# {config.notices[1]}\nrun:\n")
    assert yaml.safe_load(printed) == config.to_dict()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["net.name=narrow", "net.width=0.5"], "net.width: unknown key for 'narrow'"),
        (["net.name=narrow"], "net.widht: unknown key for 'narrow'"),
        (["net.name=net"], "net.widht: unknown key for 'net'; did you mean 'width'?"),
        (["net.name=norrow"], "net.name: must be one of the known names, got 'norrow'; did you me"),
        (["net.name=[1]"], "net.name: must be one of the known names, got [1]"),
    ],
)
def test_other_unknown_keys_are_still_refused(configs, overrides, problem):
    text = TEXT.replace("{name: net}", "{name: net, width: 0.5, widht: 0.5}")
    (configs / "one.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(["--cfg", "one.yaml", *overrides], NARROW, HEADS)
    assert f"  {problem}" in str(caught.value)


def test_paths_in_the_home_folder_are_expanded(configs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    (tmp_path / "work" / "mine.yaml").write_text(TEXT)
    config = load_config(["--cfg=~/mine.yaml", "run.dir=~/runs"], NETS, HEADS)
    assert config.run.dir == str(tmp_path / "work" / "runs")


def test_overrides_do_not_change_their_input():
    raw = {"data": {"batch_size": 1}}
    assert apply_overrides(raw, ["data.batch_size=2", "run.seed=3"]) == {
        "data": {"batch_size": 2},
        "run": {"seed": 3},
    }
    assert raw == {"data": {"batch_size": 1}}


@pytest.mark.parametrize("text", ["lr=0.1", "optim.lr", "optim.=1", ".lr=1", "="])
def test_a_malformed_override_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, [text])
    assert str(caught.value) == f"command line: expected section.key=value, got {text!r}"


def test_misspelt_keys_and_numbers_are_refused(configs):
    with pytest.raises(ConfigError) as caught:
        load_config(["--cfg", "one.yaml", "optim.lrr=1.0", "optim.lr=-5e-4"], NETS, HEADS)
    assert str(caught.value).splitlines() == [
        "one.yaml: 2 problems",
        "  optim.lrr: unknown key; did you mean 'lr'?",
        "  optim.lr: must be a number above 0, got -0.0005",
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--cgf", "one.yaml"], "unrecognized arguments: --cgf"),
        (["train.epochs=3"], "--cfg is required"),
        ([], "--cfg is required"),
        (["--print-config"], "--cfg is required"),
        (["--cfg", "one.yaml", "--lr", "1"], "unrecognized arguments: --lr"),
    ],
)
def test_errors_of_the_command_line_are_config_errors(configs, argv, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_arguments(argv)
    assert str(caught.value).startswith(f"command line: {sentence}")
    assert str(caught.value).endswith("; use --cfg NAME.yaml [section.key=value ...]")


def test_a_file_without_sections_is_refused(configs):
    (configs / "one.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(["--cfg", "one.yaml"], NETS, HEADS)
    assert (
        str(caught.value) == "one.yaml: expected sections with lines of the form `key: value`, "
        "got [1, 2]"
    )


def test_options_that_print_text(configs):
    assert requested_text(["--cfg", "one.yaml", "train.epochs=2"], NETS, HEADS) == ""
    assert requested_text(["--list", "nets"], NETS, HEADS) == "net  A net."
    assert requested_text(["--help", "run.dir"], NETS, HEADS).startswith("  run.dir: text")
    both = (requested_text([flag], NETS, HEADS) for flag in ("-h", "--help"))
    assert len(set(both)) == 1
    assert requested_text(["--print-schema"], NETS, HEADS).startswith("{")


def test_the_printed_configuration_loads_again(configs, tmp_path):
    argv = ["--cfg", "one.yaml", "optim.warmup=10 %", "net.width=2"]
    printed = requested_text([*argv, "--print-config"], NETS, HEADS)
    (tmp_path / "printed.yaml").write_text(printed)
    again = load_config(["--cfg", str(tmp_path / "printed.yaml")], NETS, HEADS)
    assert again == load_config(argv, NETS, HEADS)
    assert list(yaml.safe_load(printed)) == [*"run data net head optim train eval".split()]
    with pytest.raises(ConfigError, match=r"net\.widht: unknown key"):
        requested_text([*argv, "net.widht=1", "--print-config"], NETS, HEADS)

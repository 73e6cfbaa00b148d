# SPDX-License-Identifier: Apache-2.0
"""The help contains every key, and suggests names for unknown topics."""

from __future__ import annotations

import re
from typing import Annotated, get_type_hints

import pytest

from launch.config.configuration import Choice, Config, ConfigError
from launch.config.docstrings import field_docs
from launch.config.help import USAGE, WIDTH, help_text, listing
from launch.config.section_settings import section_settings
from launch.config.yaml_files import config_names
from ranges import above

SECTIONS = {name: kind for name, kind in get_type_hints(Config).items() if kind is not Choice}


def small(*, width: Annotated[float, above(0, "1.0 is usual")] = 1.0, flag: bool = False):
    """Build a small net.

    It is for tests.

    Parameters
    ----------
    width
        Factor on the channels.

    Notes
    -----
    Someone et al.
    """


def bare(*, m2: float = 0.5):
    """A head."""


NETS = {"small": small}
HEADS = {"bare": bare, "bear": bare}


def ask(topic):
    return help_text(topic, NETS, HEADS)


def test_the_whole_help_contains_every_key():
    text = ask("")
    assert text.startswith(USAGE)
    keys = re.findall(r"^  (\w+\.\w+): ", text, re.M)
    assert keys == [
        f"{name}.{key}" for name, kind in SECTIONS.items() for key in section_settings(kind)
    ]
    assert "  net.name=small: Build a small net.\n      net.width=1.0 net.flag=false\n" in text
    assert "  head.name=bear: A head.\n      head.m2=0.5\n" in text
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_has_a_docstring(name):
    assert set(field_docs(SECTIONS[name])) == set(section_settings(SECTIONS[name]))
    assert ask(name) in ask("")


def test_help_for_a_key():
    first, *rest = ask("data.reader").splitlines()
    assert first == "  data.reader: one of 'random', 'blocks', 'window'; default random"
    assert " ".join(map(str.strip, rest)) == field_docs(SECTIONS["data"])["reader"]
    assert all(line.startswith("      ") for line in rest) and len(rest) > 1
    assert ask("optim.warmup").splitlines()[0] == "  optim.warmup: a duration; default '0'"


def test_help_for_a_builder():
    assert ask("net.small") == "\n".join(
        [
            "net.small: Build a small net.",
            "",
            "It is for tests.",
            "",
            "  net.width: a number above 0 (1.0 is usual); default 1.0",
            "      Factor on the channels.",
            "  net.flag: true or false; default false",
            "",
            "Someone et al.",
        ]
    )
    assert ask("head") in ask("")


@pytest.mark.parametrize(
    ("topic", "end"),
    [
        ("dat", "; did you mean 'data'?"),
        ("net.smal", "; did you mean 'net.small'?"),
        ("net.xyz", "; known: net.small"),
        ("data.raeder", "; did you mean 'data.reader'?"),
        ("qqq", "; known: run, data, net, head, optim, train, eval"),
        ("head.name=", "; known: head.bare, head.bear"),
        ("head.baer", "; did you mean 'head.bare' or 'head.bear'?"),
        ("loss", "; did you mean 'head'?"),
        ("optim.learning_rate", "; did you mean 'optim.lr'?"),
    ],
)
def test_an_unknown_topic_is_refused_with_a_hint(topic, end):
    with pytest.raises(ConfigError) as caught:
        ask(topic)
    assert str(caught.value) == f"--help: no such topic, got {topic!r}{end}"


def test_lists_of_nets_heads_and_configurations():
    assert listing("nets", NETS, HEADS) == "small  Build a small net."
    assert listing("heads", NETS, HEADS).splitlines() == ["bare  A head.", "bear  A head."]
    lines = listing("configs", NETS, HEADS).splitlines()
    assert [line.split()[0] for line in lines] == config_names()
    assert all(len(line.split()) > 3 for line in lines)
    assert listing("nets", {}, {}) == ""
    with pytest.raises(ConfigError) as caught:
        listing("head", NETS, HEADS)
    assert str(caught.value) == "--list: no such list, got 'head'; did you mean 'heads'?"

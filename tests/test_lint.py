# SPDX-License-Identifier: Apache-2.0
"""The lint of the repository itself: words of the glossary, messages of commits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    """Import a script of .ci, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


words, commit_message = load("words"), load("commit_message")
sample_texts = load("sample_texts")
GLOSSARY = {"zorn": "anger", "in a jiffy": "soon"}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nthe zorn of", [2]),
        ("ZornDecoder max_zorn_s zorn", [1, 1, 1]),
        ("decodeZorn", [1]),
        ("zornig, azorn", []),
        ("done in a\n    # jiffy, in a jiffy", [1, 2]),
        ("in_a_jiffy", [1]),
    ],
)
def test_refused_words_are_found_in_names_and_across_lines(text, lines):
    assert [line for line, _ in words.hits(text, GLOSSARY)] == lines


def test_the_glossary_is_the_first_table_of_contributing():
    glossary = words.read_glossary((ROOT / "CONTRIBUTING.md").read_text())
    assert glossary["le" + "nt"] == "pooled, borrow"
    assert len(glossary) >= 25


def test_a_text_without_the_table_is_refused():
    with pytest.raises(SystemExit, match='no table with the columns "not" and "but"'):
        words.read_glossary("# Contributing")


def test_a_hit_ends_with_code_1_and_names_the_better_word(tmp_path, capsys):
    file = tmp_path / "a.py"
    file.write_text("x = 1  # a " + "pic" + "ture\n")
    assert words.main([str(file)]) == 1
    assert capsys.readouterr().out == f'{file}:1: "pic' + 'ture"; write "image"\n'
    file.write_text("x = 1\n")
    assert words.main([str(file)]) == 0


@pytest.mark.parametrize(
    ("message", "changed_lines", "problem"),
    [
        ("Add a lock\n\nTwo runs shared a folder.\n", 90, None),
        ("Fix a typo\n", 2, None),
        ("Merge branch 'x'\n", 900, None),
        ("Pass the seed\n\nReason.\n# comment of git\n", 90, None),
        ("Fix the reader\n", 90, "changes 90 lines and has no body"),
        ("Fixed the reader\n\nReason.\n", 9, 'begins with "Fixed"'),
        ("Fixes the reader\n\nReason.\n", 9, 'begins with "Fixes"'),
        ("fix the reader\n\nReason.\n", 9, 'begins with "fix"'),
        ("Fix " + "x" * 69 + "\n\nReason.\n", 9, "the subject has 73 characters"),
        ("Fix the reader.\n\nReason.\n", 9, "ends with a full stop"),
        ("Fix the reader\nReason.\n", 9, "the second line is not empty"),
        ("\n\nReason.\n", 9, "the subject is empty"),
    ],
)
def test_messages_of_commits(message, changed_lines, problem):
    problems = commit_message.problems(message, changed_lines)
    assert problems == [] if problem is None else any(problem in text for text in problems)


def test_comments_after_code_are_drawn_alone_and_blocks_of_comments_together():
    source = "a = 1  # one\nb = 2  # two\n# three\n# four\nc = 3  # five\n\n# six\n"
    found = list(sample_texts.comments(source))
    assert found == [(1, "one"), (2, "two"), (3, "three four"), (5, "five"), (7, "six")]

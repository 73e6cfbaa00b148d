# SPDX-License-Identifier: Apache-2.0
"""Descriptions of settings, read from docstrings."""

from __future__ import annotations

from dataclasses import dataclass

from launch.config.docstrings import docstring_parts, field_docs, parameter_docs, summary


@dataclass(frozen=True)
class Section:
    """A section."""

    first: int = 0
    """The first
    key."""
    bare: str = ""
    second: bool = False
    """The second.  It is a flag."""

    def check(self):
        """Not a field."""


class Base:
    """Base of a block.

    Parameters
    ----------
    low, high
        Bounds,
        both allowed.
    size : int
        Replaced below.
    """


class Block(Base):
    """Build a block.

    It has more to say.

    Parameters
    ----------
    size
        Number of channels.

    Notes
    -----
    Someone et al., arXiv:0000.00000.
    """


def plain():
    pass


def test_docstrings_of_fields():
    assert field_docs(Section) == {"first": "The first key.", "second": "The second. It is a flag."}


def test_parameters_of_a_class_and_its_base_classes():
    assert parameter_docs(Block) == {
        "low": "Bounds, both allowed.",
        "high": "Bounds, both allowed.",
        "size": "Number of channels.",
    }
    assert parameter_docs(plain) == {}


def test_sections_of_a_docstring():
    parts = docstring_parts(Block)
    assert list(parts) == ["", "Parameters", "Notes"]
    assert parts[""] == "Build a block.\n\nIt has more to say."
    assert parts["Notes"] == "Someone et al., arXiv:0000.00000."
    assert (summary(Block), summary(plain)) == ("Build a block.", "")

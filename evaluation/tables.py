# SPDX-License-Identifier: Apache-2.0
"""Tables of results as plain text, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


@dataclass(frozen=True)
class Table:
    """Table of text; the first column is aligned to the left, the others to the right.

    Parameters
    ----------
    title
        Name of the table.
    columns
        Headings.
    rows
        Lines; each has one cell for each heading.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def format_rate(rate: float | None) -> str:
    """Return a fraction as a percentage with two decimals, or "-" for None."""
    return "-" if rate is None else f"{100 * rate:.2f}"


def format_text(table: Table) -> str:
    """Return a table as lines of text with aligned columns."""
    lines = [list(table.columns), *map(list, table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [table.title]
    for first, *rest in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def format_markdown(table: Table) -> str:
    """Return a table in Markdown, with its title as a paragraph before it."""
    marks = ["---", *("---:" for _ in table.columns[1:])]
    lines = [list(table.columns), marks, *map(list, table.rows)]
    texts = ["| " + " | ".join(map(_escape_markdown, cells)) + " |" for cells in lines]
    return "\n".join([f"**{_escape_markdown(table.title)}**", "", *texts])


def format_latex(table: Table) -> str:
    """Return a table as a LaTeX environment; the document needs ``\\usepackage{booktabs}``."""
    lines = [_latex_line(row) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{table.title.translate(LATEX_ESCAPES)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            _latex_line(table.columns),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX_ESCAPES) for cell in cells) + r" \\"


def _escape_markdown(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")

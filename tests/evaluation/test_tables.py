# SPDX-License-Identifier: Apache-2.0
"""Tables in three forms."""

from __future__ import annotations

from evaluation.tables import Table, format_latex, format_markdown, format_rate, format_text

TABLE = Table("A & B", ["set_1", "TAR [%]"], [["x|y", "9.50"], ["long name", "-"]])


def test_text_has_aligned_columns():
    assert format_text(TABLE) == (
        "A & B\nset_1      TAR [%]\nx|y           9.50\nlong name        -"
    )


def test_markdown_escapes_separators():
    assert format_markdown(TABLE) == (
        "**A & B**\n\n| set_1 | TAR [%] |\n| --- | ---: |\n| x\\|y | 9.50 |\n| long name | - |"
    )


def test_latex_escapes_its_special_characters():
    lines = format_latex(TABLE).splitlines()
    assert lines[2:8] == [
        r"\caption{A \& B}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"set\_1 & TAR [\%] \\",
        r"\midrule",
        r"x|y & 9.50 \\",
    ]
    escaped = r"\textbackslash{}\textasciicircum{}\textasciitilde{}\{\#\$ \\"
    assert escaped in format_latex(Table("", ["\\^~{#$"], [])).splitlines()


def test_rates_are_percentages():
    assert [format_rate(rate) for rate in (None, 0, 0.98765, 1)] == ["-", "0.00", "98.77", "100.00"]

# SPDX-License-Identifier: Apache-2.0
"""Suggest known names for an unknown name: a misspelt name, or a name of another project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aliases import ALIASES

MAX_EDITS = 2
MAX_SUGGESTIONS = 4


def suggest(word: Any, known: Iterable[Any]) -> list[str]:
    """Return the known names that an unknown word probably stands for; [] if there is none.

    These rules apply in this order:

    1. A known name that equals the word except for case, ``_``, ``-``, spaces, dots and an ending
       "loss".
    2. The known names among those that `aliases.ALIASES` lists for the word.  If its list for the
       word is empty, there is no suggestion.
    3. The known names with the fewest edits, at most ``MAX_EDITS``.  An edit inserts, deletes or
       replaces one letter.  Short words allow fewer edits.  If the digits of the two names differ,
       one edit fewer is allowed, so that m2 does not count as a misspelt m3.
    """
    names, text = [str(name) for name in known], str(word)
    spellings = [text.lower(), _plain(text), _plain(text).removesuffix("loss")]
    for spelling in spellings:
        if same := [name for name in names if _plain(name) == spelling]:
            return same[:1]
    for spelling in spellings:
        found = [name for name in ALIASES.get(spelling, ()) if name in names]
        if found or ALIASES.get(spelling) == ():
            return found
    edits = {name: _near(text.lower(), name.lower()) for name in names}
    near = {name: count for name, count in edits.items() if count is not None}
    return [name for name in near if near[name] == min(near.values())][:MAX_SUGGESTIONS]


def question(names: Sequence[str]) -> str:
    """Return the question "did you mean 'a', 'b' or 'c'?"; "" if there are no names."""
    *others, last = [repr(name) for name in names] or [""]
    words = f"{', '.join(others)} or {last}" if others else last
    return f"did you mean {words}?" if last else ""


def listed(word: Any, known: Iterable[Any]) -> str:
    """Return the suggestions as a question, if there are any, and then all known names."""
    names = [str(name) for name in known]
    all_names = f"known: {', '.join(names) or 'none'}"
    return " ".join(filter(None, [question(suggest(word, names)), all_names]))


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter not in "_- .")


def _digits(word: str) -> str:
    return "".join(letter for letter in word if letter.isdigit())


def _near(word: str, name: str) -> int | None:
    """Return the number of typing errors between two words, or None if there are too many."""
    shorter = min(len(word), len(name))
    if abs(len(word) - len(name)) > MAX_EDITS:
        return None
    edits = count_edits(word, name)
    if edits == 2 and shorter >= 3 and sorted(word) == sorted(name):
        return 1  # Two swapped letters are one typing error.
    limit = MAX_EDITS if shorter >= 5 else int(shorter >= 2)
    if _digits(word) != _digits(name):
        limit -= 1
    return edits if edits <= limit else None


def count_edits(one: str, two: str) -> int:
    """Count the letters to insert, delete or replace to turn one word into the other.

    Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966.
    """
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(two, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]

# SPDX-License-Identifier: Apache-2.0
"""Find words in the tracked text files that the glossary of CONTRIBUTING.md refuses.

The glossary is the table with the columns "not" (refused words) and "but" (better words).
``python .ci/words.py [FILE ...]`` checks names, comments, messages and documents alike.  The script
splits identifiers at underscores and capitals, and also finds a phrase that continues on the next
line.  For each refused word the script prints ``file:line: "word"; write "better"``.  The exit
code is then 1.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = "CONTRIBUTING.md"
SUFFIXES = {
    "", ".c", ".cc", ".cff", ".cu", ".h", ".in", ".md", ".py", ".sh", ".toml", ".txt", ".yaml",
    ".yml",
}  # fmt: skip
TABLE = re.compile(r"^\| not \| but \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
GAP = r"[\s#*/\"'_-]+"
"""Pattern between two words of a phrase: white space, comment marks, quotes, _ and -."""


def read_glossary(text: str) -> dict[str, str]:
    """Return a dictionary from each refused word or phrase to the words to write instead."""
    table = TABLE.search(text)
    if table is None:
        raise SystemExit(
            f'{GLOSSARY}: no table with the columns "not" and "but"; restore this table'
        )
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()]
    return {word.strip(): better for words, better in rows for word in words.split(",")}


def hits(text: str, glossary: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield a pair (line number, refused word) for each use of a refused word in a text."""
    phrases = "|".join(GAP.join(map(re.escape, word.split())) for word in glossary)
    pattern = re.compile(rf"(?<![a-z])(?:{phrases})(?![a-z])", re.IGNORECASE)
    # Insert a space before each capital inside a name (CamelCase -> Camel Case).  The order of the
    # words and the line numbers do not change.
    spaced = HUMP.sub(" ", text)
    for found in pattern.finditer(spaced):
        word = re.sub(GAP, " ", found[0]).lower()
        yield spaced.count("\n", 0, found.start()) + 1, word


def tracked_files() -> list[str]:
    """Return the names of the tracked text files, except lock files and measured results (JSON)."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [
        name
        for name in listing.stdout.split("\0")
        if name
        and Path(name).suffix in SUFFIXES
        and not (name.startswith("requirements/") and name.endswith(".txt"))
        and (ROOT / name).is_file()
    ]


def main(names: list[str]) -> int:
    """Print every refused word in the files ``names``; if ``names`` is empty, in all tracked files.

    Return the exit code: 1 if a refused word was found, else 0.
    """
    glossary = read_glossary((ROOT / GLOSSARY).read_text(encoding="utf-8"))
    count = 0
    for name in names or tracked_files():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name == GLOSSARY:
            text = TABLE.sub(lambda table: "\n" * table[0].count("\n"), text)
        for line, word in hits(text, glossary):
            print(f'{name}:{line}: "{word}"; write "{glossary[word]}"')
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

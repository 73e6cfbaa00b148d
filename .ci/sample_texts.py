# SPDX-License-Identifier: Apache-2.0
"""Print docstrings, messages and comments drawn at random, for a reader to judge.

``python .ci/sample_texts.py SEED [--docstrings 20 --messages 20 --comments 10]`` draws the
texts from all tracked Python files except the tests.  A text passes if a reader who knows the field
but not the project understands the text at the first reading.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIN_WORDS = 4
"""Smallest number of words in a comment that can be drawn; a message needs twice as many words.

Shorter texts have no sentence to judge.
"""


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield a pair (line, "name: text") for each docstring of a module, class or function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                name = getattr(node, "name", "module")
                yield getattr(node, "lineno", 1), f"{name}: {text}"


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield a pair (line number, source code of the string) for each string that may be a message.

    Messages are errors, log lines and help texts.  Short strings, docstrings and strings with line
    breaks are skipped.
    """
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in statements | pieces:
            continue
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            text = ast.unparse(node)
            if len(text.split()) >= 2 * MIN_WORDS and "\\n" not in text:
                yield node.lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield a pair (first line number, text) for each comment.

    Comments on consecutive lines that hold no code count as one comment.
    """
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        follows_code = not token.line.lstrip().startswith("#")
        if block and (follows_code or line != last + 1):
            yield first, " ".join(block)
            block = []
        if not block:
            first = line
        block.append(token.string.lstrip("#: "))
        last = -1 if follows_code else line
    if block:
        yield first, " ".join(block)


def main() -> int:
    """Draw texts at random and print them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("seed", type=int, help="seed of the random draw")
    for kind, count in (("docstrings", 20), ("messages", 20), ("comments", 10)):
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"number of {kind} to draw")
    arguments = parser.parse_args()
    listing = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found: dict[str, list[str]] = {"docstrings": [], "messages": [], "comments": []}
    for name in listing.stdout.splitlines():
        if name.startswith("tests/"):
            continue
        source = (ROOT / name).read_text(encoding="utf-8")
        tree = ast.parse(source)
        found["docstrings"] += [f"{name}:{line} {text}" for line, text in docstrings(tree)]
        found["messages"] += [f"{name}:{line} {text}" for line, text in messages(tree)]
        found["comments"] += [
            f"{name}:{line} {text}"
            for line, text in comments(source)
            if len(text.split()) >= MIN_WORDS and "SPDX" not in text
        ]
    draw = random.Random(arguments.seed)
    for kind, texts in found.items():
        count = min(getattr(arguments, kind), len(texts))
        print(f"\n## {kind}: {count} of {len(texts)}\n")
        for text in draw.sample(sorted(texts), count):
            print(f"- {text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

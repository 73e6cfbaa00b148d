# SPDX-License-Identifier: Apache-2.0
"""Check a commit message, as git's commit-msg hook: ``commit_message.py FILE``.

The subject must have at most 72 characters and say in the imperative what the commit does.  The
body must say why.  A commit that changes at most three lines needs no body.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MAX_SUBJECT = 72
TYPO_LINES = 3
NOT_IMPERATIVE = re.compile(r"(?:ed|ing|[^su]s)$")
IMPERATIVE = {"Add", "Bring", "Embed", "Feed", "Need", "Seed", "Shed", "Speed", "Spread", "String"}


def problems(message: str, changed_lines: int) -> list[str]:
    """Return one sentence for each fault of a commit message, or an empty list.

    ``changed_lines`` is the number of added lines plus the number of removed lines.
    """
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject, body = (lines or [""])[0].strip(), lines[1:]
    if subject.startswith(("Merge ", "Revert ", "fixup! ", "squash! ")):
        return []
    first = subject.split(" ")[0]
    found = []
    if not subject:
        found.append("the subject is empty; say what the commit does")
    if len(subject) > MAX_SUBJECT:
        found.append(f"the subject has {len(subject)} characters; use at most {MAX_SUBJECT}")
    if subject.endswith("."):
        found.append("the subject ends with a full stop; remove the full stop")
    if subject and (
        not first[:1].isupper() or (NOT_IMPERATIVE.search(first) and first not in IMPERATIVE)
    ):
        found.append(
            f'the subject begins with "{first}"; begin with a capitalised imperative such as "Add"'
        )
    if body and body[0].strip():
        found.append("the second line is not empty; leave one line empty below the subject")
    if changed_lines > TYPO_LINES and not any(line.strip() for line in body):
        found.append(
            f"the commit changes {changed_lines} lines and has no body; add a body that says why"
        )
    return found


def staged_lines() -> int:
    """Return the number of added lines plus the number of removed lines of the staged changes."""
    numbers = subprocess.run(
        ["git", "diff", "--cached", "--numstat"], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    counts = [line.split("\t")[:2] for line in numbers if line]
    return sum(int(number) for pair in counts for number in pair if number.isdigit())


if __name__ == "__main__":
    faults = problems(Path(sys.argv[1]).read_text(encoding="utf-8"), staged_lines())
    for fault in faults:
        print(f"commit message: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)

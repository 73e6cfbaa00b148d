# SPDX-License-Identifier: Apache-2.0
"""Make the names of files and identities printable, for messages of one line."""

from __future__ import annotations


def printable(text: object) -> str:
    """Return a text without control characters, line breaks and undecodable bytes.

    An escape such as ``\\n`` or ``\\udcff`` replaces each of these characters.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )

# SPDX-License-Identifier: Apache-2.0
"""Capture what C libraries print to stderr, such as the warnings of libjpeg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_TEXT_BYTES = 1 << 16
_STDERR = 2


class Captured:
    """Text that was printed to stderr."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text: str | None = None

    def text(self) -> str:
        """Return the printed text, at most 64 KiB of it."""
        if self._text is not None:
            return self._text
        return os.pread(self._descriptor, _MAX_TEXT_BYTES, 0).decode(errors="replace")

    def close(self) -> None:
        """Keep the text, and free the memory of the file that holds it."""
        self._text = self.text()
        os.close(self._descriptor)


@contextmanager
def captured_stderr() -> Iterator[Captured]:
    """Redirect the file descriptor of stderr to memory; print to it in one thread at most."""
    before = os.dup(_STDERR)
    descriptor = os.memfd_create("stderr")
    captured = Captured(descriptor)
    os.dup2(descriptor, _STDERR)
    try:
        yield captured
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        captured.close()

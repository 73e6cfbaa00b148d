# SPDX-License-Identifier: Apache-2.0
"""Collect the warnings that image libraries print on the stderr of this process.

For an incomplete JPEG, libjpeg invents the missing pixels, and the only sign is a line that libjpeg
prints on file descriptor 2.  OpenCV offers no other access to these warnings.
"""

from __future__ import annotations

import os

_MAX_BYTES = 1 << 12
# Parts of libjpeg's warnings about lost data.  The warning about extraneous bytes before a marker
# is not listed, because such bytes change no pixel.
_DAMAGE = ("premature end", "bad huffman code", "found marker", "invalid progressive parameters")
_PREFIXES = ("corrupt jpeg data: ", "libpng error: ", "libpng warning: ")
_ERRORS = ("libpng error: ",)


class DecoderWarnings:
    """Redirects the stderr of this process to memory, and finds reports of damage in the text.

    The redirection lasts from the start of a ``with`` block to its end.
    """

    def __enter__(self) -> DecoderWarnings:
        self._file = os.memfd_create("decoder-warnings")
        self._output = os.dup(2)
        os.dup2(self._file, 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._output, 2)
        os.close(self._output)
        os.close(self._file)

    def clear(self) -> None:
        """Discard the warnings so far."""
        if os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)
            os.ftruncate(self._file, 0)

    def read_damage(self) -> str:
        """Return the first report of damage since the last ``clear``; "" if there is none."""
        if not os.lseek(self._file, 0, os.SEEK_CUR):
            return ""
        text = os.pread(self._file, _MAX_BYTES, 0).decode("ascii", "replace")
        for line in text.splitlines():
            lower = line.lower()
            if lower.startswith(_ERRORS) or any(sign in lower for sign in _DAMAGE):
                start = next((len(p) for p in _PREFIXES if lower.startswith(p)), 0)
                return line[start:].strip()
        return ""

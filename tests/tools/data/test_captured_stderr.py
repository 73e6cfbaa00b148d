# SPDX-License-Identifier: Apache-2.0
"""Text that C libraries print is captured and not shown."""

from __future__ import annotations

import os

from tools.data.captured_stderr import captured_stderr


def test_text_on_the_descriptor_is_captured_and_stderr_comes_back(capfd):
    with captured_stderr() as captured:
        os.write(2, b"Corrupt JPEG data")
        assert captured.text() == "Corrupt JPEG data"
    os.write(2, b"after")
    assert captured.text() == "Corrupt JPEG data"
    assert capfd.readouterr().err == "after"

# SPDX-License-Identifier: Apache-2.0
"""Warnings of image libraries on the error output."""

from __future__ import annotations

import os

from tools.data.decoder_warnings import DecoderWarnings


def test_reports_of_damage_are_found_and_other_lines_are_not():
    with DecoderWarnings() as warnings:
        assert warnings.read_damage() == ""
        os.write(2, b"Corrupt JPEG data: 3 extraneous bytes before marker 0xd9\n")
        assert warnings.read_damage() == ""
        os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
        assert warnings.read_damage() == "premature end of data segment"
        warnings.clear()
        assert warnings.read_damage() == ""


def test_the_error_output_is_restored(capfd):
    with DecoderWarnings():
        os.write(2, b"hidden\n")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"

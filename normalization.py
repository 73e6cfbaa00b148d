# SPDX-License-Identifier: Apache-2.0
"""Normalisation of pixels for the nets: ``(x - MEAN) / STD`` for x of 0 to 255, in all channels.

A checkpoint's metadata keeps both numbers.  Imports nothing: every package may import this module.
"""

MEAN = 127.5
STD = 128.0

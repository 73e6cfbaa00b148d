# SPDX-License-Identifier: Apache-2.0
"""Normalisation of pixels for the nets: ``(x - MEAN) / STD`` for x in 0..255, on every channel.

Every checkpoint stores both numbers in its metadata.
"""

MEAN = 127.5
STD = 128.0

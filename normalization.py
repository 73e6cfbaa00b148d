# SPDX-License-Identifier: Apache-2.0
"""Constants of the pixel normalisation: nets receive ``(x - MEAN) / STD`` for a pixel x in 0..255.

Both constants apply to every channel.  Every checkpoint stores them in its metadata.
"""

MEAN = 127.5
STD = 128.0

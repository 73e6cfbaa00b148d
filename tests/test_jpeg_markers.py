# SPDX-License-Identifier: Apache-2.0
"""Pictures without an end."""

from __future__ import annotations

import cv2
import numpy as np

from jpeg_markers import has_end


def test_a_picture_has_an_end_or_was_cut_off(make_face):
    face = make_face(0, 0)
    image = cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])[1].tobytes()
    small = b"\xff\xe1" + (2 + len(face)).to_bytes(2, "big") + face
    with_thumbnail = face[:2] + small + face[2:]
    for jpeg in (face, progressive, restarts, with_thumbnail):
        for behind in (b"", bytes(7), b"\n", b"\xff\xff", face[:300]):
            assert has_end(np.frombuffer(jpeg + behind, np.uint8))
        for cut in (2, 3, 20, len(jpeg) // 2, len(jpeg) - 2, len(jpeg) - 1):
            for behind in (b"", bytes(7), b"\n"):
                assert not has_end(np.frombuffer(jpeg[:cut] + behind, np.uint8)), cut
    for other in (b"\x89PNG\r\n", b"\xff", b"GIF89a"):
        assert has_end(np.frombuffer(other, np.uint8))  # nothing is said about it

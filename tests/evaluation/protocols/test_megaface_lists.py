# SPDX-License-Identifier: Apache-2.0
"""JSON lists of the MegaFace challenge."""

from __future__ import annotations

import pytest

from evaluation.protocols.megaface_lists import PROBE_PARTS, read_image_list
from evaluation.text_lists import ListError


def test_the_paths_of_a_json_list_are_shortened(tmp_path):
    path = tmp_path / "probes.json_10_1"
    path.write_text('{"id": [1], "path": ["/data/Ann/1.jpg", "Bob\\\\2.jpg"]}')
    assert read_image_list(path, PROBE_PARTS) == ["Ann/1.jpg", "Bob/2.jpg"]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"{", "must be JSON, got "),
        (b"\xff\xfe\xff", "must be JSON, got "),
        (b"[" * 100000, "must be JSON, got "),
        (b'["a/1.jpg"]', "must have the key 'path' with a list of paths, got NoneType; use a t"),
        (b'{"path": "a/1.jpg"}', "must have the key 'path' with a list of paths, got str; use "),
        (b'{"path": []}', "must have the key 'path' with a list of paths, got list; use a tem"),
        (b'{"path": ["a/1.jpg", 2]}', "must have the key 'path' with a list of paths, got list; "),
    ],
)
def test_other_json_files_are_refused(tmp_path, content, problem):
    path = tmp_path / "probes.json"
    path.write_bytes(content)
    with pytest.raises(ListError) as caught:
        read_image_list(path, PROBE_PARTS)
    text = str(caught.value)
    assert text.startswith(f"{path}: {problem}") and "\n" not in text

# SPDX-License-Identifier: Apache-2.0
"""Values of the option --size."""

from __future__ import annotations

import pytest

from tools.data.image_size import parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("112", (112, 112)), ("112x96", (112, 96)), ("1x4096", (1, 4096))]
)
def test_a_side_or_height_and_width_are_accepted(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "112x", "x96", "112X96", "4097", "1x0", "-1", "1e2", "9" * 9]
)
def test_other_values_are_one_sentence(text):
    with pytest.raises(ValueError) as error:
        parse_size(text)
    assert str(error.value).startswith("--size: must be HEIGHTxWIDTH or the side of a square, ")
    assert f"got {text!r}" in str(error.value)

# SPDX-License-Identifier: Apache-2.0
"""docs/nets.md against the networks."""

from __future__ import annotations

import pytest

from nets import ALIASES, NETS
from ranges import settings
from tools.net_checks.published import PUBLISHED
from tools.nets_table import DOCUMENT, document, setting_text


def test_the_tables_are_those_of_the_networks():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert document(text) == text, "run: python -m tools.nets_table --write"


def test_every_network_has_published_counts():
    assert {name for name in NETS if name not in ALIASES} <= set(PUBLISHED) <= set(NETS)


def test_a_setting_states_its_range():
    declared = settings(NETS["vit_t"])
    assert setting_text(declared["mask_ratio"]) == "mask_ratio 0.1 [0, 0.9]"
    assert setting_text(declared["drop_path"]) == "drop_path 0.1 [0, 1)"
    variant = settings(NETS["mobilenet_v3"])["variant"]
    assert setting_text(variant) == "variant large (or small)"


def test_a_document_without_a_table_is_refused():
    with pytest.raises(ValueError, match="the lines <!-- begin: sizes --> and"):
        document("# Nets\n")

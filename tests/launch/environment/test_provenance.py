# SPDX-License-Identifier: Apache-2.0
"""What is written down about the software of a run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from launch.environment import provenance


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"mxnet": "1.9.1"}, {"mxnet": "1.9.1"}),
        ({"mxnet-cu112": "1.9.1"}, {"mxnet": "1.9.1", "mxnet-cu112": "1.9.1"}),
        ({}, {"mxnet": "absent"}),
    ],
)
def test_mxnet_under_either_name(installed, expected, monkeypatch):
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(provenance, "version", version)
    found = provenance.versions()
    assert {k: v for k, v in found.items() if k.startswith("mxnet")} == expected
    assert found["numpy"] == "absent"

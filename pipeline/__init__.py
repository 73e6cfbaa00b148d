# SPDX-License-Identifier: Apache-2.0
"""JPEG records -> batches on the device."""

from typing import Any

__all__ = ["build_loader"]


def __getattr__(name: str) -> Any:
    # Late, so that records and sampling serve programs that have no mxnet.
    if name == "build_loader":
        from pipeline.loader import build_loader

        return build_loader
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")

# SPDX-License-Identifier: Apache-2.0
"""Data pipeline: read images from record files and make batches on the device."""

from typing import Any

__all__ = ["build_loader"]


def __getattr__(name: str) -> Any:
    # Import pipeline.loader only on demand, because it needs MXNet: pipeline.records and
    # pipeline.sampling must work without MXNet.
    if name == "build_loader":
        from pipeline.loader import build_loader

        return build_loader
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")

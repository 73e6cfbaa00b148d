# SPDX-License-Identifier: Apache-2.0
"""Data pipeline: JPEG record files to batches on the device."""

from typing import Any

__all__ = ["build_loader"]


def __getattr__(name: str) -> Any:
    # Lazy import: programs without MXNet use pipeline.records and pipeline.sampling.
    if name == "build_loader":
        from pipeline.loader import build_loader

        return build_loader
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")

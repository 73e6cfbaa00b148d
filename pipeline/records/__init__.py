# SPDX-License-Identifier: Apache-2.0
"""What lies on disk: record files, their index, labels and bytes; knows no mxnet."""

from pipeline.records.open import RecordError, RecordSet, open_records

__all__ = ["RecordError", "RecordSet", "open_records"]

# SPDX-License-Identifier: Apache-2.0
"""Read and write record sets: record files, their index, labels and images; MXNet is not needed."""

from pipeline.records.mapped import RecordError
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.record_set import ImageError, RecordSet
from pipeline.records.writer import write_record_set

__all__ = [
    "ImageError",
    "RecordError",
    "RecordReader",
    "RecordSet",
    "open_records",
    "write_record_set",
]

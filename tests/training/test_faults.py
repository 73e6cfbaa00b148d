# SPDX-License-Identifier: Apache-2.0
"""Exit codes of exceptions, and messages of libraries as one line."""

from __future__ import annotations

import mxnet as mx
import pytest

from training.faults import Stopped, TrainingError, one_line

DALI = """Critical error in pipeline:
CUDA runtime API error cudaErrorMemoryAllocation (2):
out of memory
Stacktrace (2 entries):
[frame 0]: /opt/libdali.so(+0x4c81c2) [0x7f]
Current pipeline object is no longer valid.
"""
MXNET = """Traceback (most recent call last):
  File "../src/storage/./pooled_storage_manager.h", line 188
MXNetError: cudaMalloc retry failed: out of memory"""


def test_exit_codes():
    assert TrainingError("the loss of step 3 is not finite").exit_code == 1
    refused = TrainingError("train.rec: is damaged", usage=True)
    assert (refused.exit_code, refused.usage, str(refused)) == (2, True, "train.rec: is damaged")
    assert Stopped("stopped at step 3").exit_code == 143


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(DALI),
            "Critical error in pipeline: CUDA runtime API error cudaErrorMemoryAllocation (2): "
            "out of memory",
        ),
        (mx.base.MXNetError(MXNET), "cudaMalloc retry failed: out of memory"),
        (ValueError("ValueError: wrong"), "wrong"),
        (RuntimeError(), "no message"),
    ],
)
def test_a_message_becomes_one_line(error, line):
    assert one_line(error) == line


def test_a_real_mxnet_error_becomes_its_last_line(tmp_path):
    (tmp_path / "net.params").write_bytes(b"none")
    with pytest.raises(mx.base.MXNetError) as caught:
        mx.nd.load(str(tmp_path / "net.params"))
    assert str(caught.value).startswith("Traceback")
    assert one_line(caught.value).startswith("Check failed: ")

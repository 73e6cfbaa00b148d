# SPDX-License-Identifier: Apache-2.0
"""GPUs that cannot be used are refused by all ranks together; runs on the CPU ask for none."""

from __future__ import annotations

import json

import pytest

from tests.parallel.ranks import HERE, run, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_gpus_without_code_for_them(device, tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    # Only the second rank's GPU is too new.
    program = [HERE / "fake_gpus.py", make_driver(86, 90), 2, "--cfg", cfg, f"run.device={device}"]
    sentence = r"rank 1: run\.device: mxnet-cu112 1\.9\.1 supports .* got Fake GPU 1 with compute "
    check_refusal(run(2, program), sentence + r"capability 9\.0 as GPU 1; use NVIDIA's NGC")
    assert not (tmp_path / "runs").exists()


def test_fewer_gpus_than_ranks(tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    program = [HERE / "fake_gpus.py", make_driver(86), 1, "--cfg", cfg]
    refused = run(2, [*program, "run.device=gpu"])
    check_refusal(
        refused, r"run\.device: 'gpu' requires one GPU per rank of this host \(2\), got 1; use"
    )
    # The CPU for both would be as good as a run that stands still.
    refused = run(2, [*program, "run.device=auto"])
    check_refusal(refused, r"got 2 ranks and 1 GPU on this host; start 1 \(-np 1\), or")
    assert not (tmp_path / "runs").exists()


def test_no_gpu_is_told_by_an_mxnet_for_gpus(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 1})
    ended = run(2, [HERE / "fake_gpus.py", "no-such-driver.so", 0, "--cfg", cfg, "run.device=auto"])
    assert ended.code == 0, ended.everything
    assert "device cpu(0)" in ended.stdout
    notice = "device: this process uses the CPU, because mxnet-cu112 1.9.1 sees no GPU"
    assert ended.stdout.count(notice) == 1
    summary = json.loads((tmp_path / "runs" / "tiny-001" / "summary.json").read_text())
    assert [text for text in summary["notices"] if text.startswith(notice)]


def test_a_fault_of_one_gpu_is_a_sentence_of_all_ranks(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, data={"decode": "cpu"}, train={"log_every": 3})
    sentence = r"rank 1: GPU 1 could not decode images of \S+ between keys \d+ and \d+, got from "
    check_refusal(
        run(2, [HERE / "gpu_fault.py", "--cfg", cfg]),
        sentence + r"DALI: nvJPEG error \(8\); the CPU can, so use data\.decode=native",
    )

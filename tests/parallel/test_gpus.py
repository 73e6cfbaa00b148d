# SPDX-License-Identifier: Apache-2.0
"""All ranks refuse an unusable GPU with one message; runs on the CPU need no GPU."""

from __future__ import annotations

import json

import pytest

from tests.parallel.ranks import HERE, run, run_several, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel


def refused(folder, cfg, driver, gpus, devices):
    """Start two ranks with fake GPUs once for each of ``devices``; return the results."""
    commands = [["--cfg", cfg, f"run.device={device}"] for device in devices]
    program = [HERE / "fake_gpus.py", driver, gpus, "--several"]
    return run_several(2, folder, commands, program)


def test_a_gpu_that_the_wheel_does_not_support_is_refused(tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    # Only the GPU of the second rank is too new.
    sentence = (
        r"rank 1: run\.device: mxnet-cu112 1\.9\.1 supports .* got Fake GPU 1 with compute "
        r"capability 9\.0 as GPU 1; use NVIDIA's NGC"
    )
    for ended in refused(tmp_path, cfg, make_driver(86, 90), 2, ["auto", "gpu"]):
        check_refusal(ended, sentence)
    assert not (tmp_path / "runs").exists()


def test_fewer_gpus_than_ranks_are_refused(tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    gpu, auto = refused(tmp_path, cfg, make_driver(86), 1, ["gpu", "auto"])
    check_refusal(
        gpu, r"run\.device: 'gpu' requires a GPU for each of the 2 ranks on this host, got 1; use"
    )
    # "auto" must not fall back to the CPU, which would be far too slow.
    check_refusal(
        auto, r"got 2 ranks and 1 GPU on this host; start at most 1 of the ranks \(-np 1\)"
    )
    assert not (tmp_path / "runs").exists()


def test_mxnet_for_gpus_without_a_gpu_gives_a_notice(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 1})
    ended = run(2, [HERE / "fake_gpus.py", "no-such-driver.so", 0, "--cfg", cfg, "run.device=auto"])
    assert ended.code == 0, ended.everything
    assert "device cpu(0)" in ended.stdout
    notice = "device: this process uses the CPU, because mxnet-cu112 1.9.1 sees no GPU"
    assert ended.stdout.count(notice) == 1
    summary = json.loads((tmp_path / "runs" / "tiny-001" / "summary.json").read_text())
    assert [text for text in summary["notices"] if text.startswith(notice)]


def test_a_gpu_decode_error_on_one_rank_ends_all_ranks_with_one_message(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, data={"decode": "cpu"}, train={"log_every": 3})
    sentence = r"rank 1: GPU 1 could not decode images of \S+ between keys \d+ and \d+, got from "
    check_refusal(
        run(2, [HERE / "gpu_fault.py", "--cfg", cfg]),
        sentence + r"DALI: nvJPEG error \(8\); the CPU can decode them, so use data\.decode=native",
    )

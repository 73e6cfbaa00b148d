# SPDX-License-Identifier: Apache-2.0
"""GPUs that cannot be used are refused by all ranks together; runs on the CPU ask for none."""

from __future__ import annotations

import pytest

from tests.parallel.ranks import HERE, run, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_gpus_without_code_for_them(device, tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    # Only the second rank's GPU is too new.
    program = [HERE / "fake_gpus.py", make_driver(86, 90), 2, "--cfg", cfg, f"run.device={device}"]
    sentence = r"rank 1: run\.device: mxnet-cu112 1\.9\.1 holds .* got Fake GPU 1 with compute "
    check_refusal(run(2, program), sentence + r"capability 9\.0 as GPU 1; use NVIDIA's NGC")
    assert not (tmp_path / "runs").exists()


def test_fewer_gpus_than_ranks(tiny_records, make_driver, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    program = [HERE / "fake_gpus.py", make_driver(86), 1, "--cfg", cfg]
    refused = run(2, [*program, "run.device=gpu"])
    check_refusal(refused, r"run\.device: 'gpu' needs 2 GPUs on this host, MXNet sees 1; use")
    # All ranks of a host on one kind of device: the CPU, and no driver is asked.
    ended = run(2, [HERE / "fake_gpus.py", "no-such-driver.so", *program[2:], "run.device=auto"])
    assert ended.code == 0, ended.everything
    assert "device cpu(0)" in ended.stdout

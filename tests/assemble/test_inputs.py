# SPDX-License-Identifier: Apache-2.0
"""Inputs of a run: records, sets, fingerprint, and the device of each rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import pytest

from assemble.inputs import open_inputs
from assemble.pretrained import open_pretrained
from launch.config.configuration import ConfigError
from launch.ranks.agreement import Refused
from launch.ranks.comm import Comm
from pipeline.loader import SYNTHETIC_STEPS
from tests.assemble.configuration import make_config, make_synthetic

ROOT = Path(__file__).resolve().parents[2]
TWO = Comm(0, 2, 0, 2)

DEVICES = """
import os, sys
import mxnet as mx
import launch.environment.gpu
from assemble.inputs import open_inputs
from launch.config.configuration import ConfigError
from launch.ranks.comm import Comm
from tests.assemble.configuration import make_synthetic

old, driverless = sys.argv[1:3]
launch.environment.gpu.version = {"mxnet-cu112": "1.9.1"}.__getitem__
config = make_synthetic("run.device=auto")

def opened(gpus, driver, rank, ranks):
    launch.environment.gpu.DRIVER = driver
    mx.context.num_gpus = lambda: gpus
    inputs = open_inputs(config, Comm(rank, ranks, rank, ranks))
    print(inputs.ctx, os.environ.get("MXNET_USE_FUSION"), *inputs.notices, sep=" | ")

for rank in range(8):
    try:
        opened(7, old, rank, 8)
    except ConfigError as error:
        print(error)
opened(0, driverless, 1, 2)
opened(2, old, 1, 2)
"""


def test_all_ranks_of_a_host_choose_the_same_kind_of_device(make_driver):
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, make_driver(80, 80, version=11040), "no-such-driver.so"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "MXNET_USE_FUSION"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *refused, without, with_gpu = done.stdout.splitlines()
    assert len(refused) == 8 and len(set(refused)) == 1
    assert (
        "got 8 ranks and 7 GPUs on this host; start at most 7 of the ranks (-np 7), or"
        in refused[0]
    )
    assert without.startswith("cpu(0) | None | device: this process uses the CPU, because ")
    assert with_gpu.startswith("gpu(1) | 0 | driver: MXNet's operator fusion requires CUDA 11.8, ")


def test_records_and_sets_are_opened(tiny_records, tmp_path):
    config = make_config(
        f"data.records={tiny_records}",
        f"eval.sets=[{tiny_records}]",
        f"run.dir={tmp_path}",
        "data.batch_size=7",
    )
    inputs = open_inputs(config, TWO)
    assert inputs.ctx == mx.cpu() and inputs.notices == () and inputs.pretrained is None
    assert (inputs.num_classes, inputs.image_size) == (12, (112, 112))
    assert inputs.epoch_images == 112  # 120 images, in steps of 14
    fingerprint = inputs.fingerprint()
    assert {k: v for k, v in fingerprint.items() if not k.startswith("crc_")} == {
        "images": 120,
        "people": 12,
        "image_size": [112, 112],
    }
    assert "crc_labels" in fingerprint
    assert inputs.shared_facts() == {"device": "cpu", "pairs": {"tiny": 40}, **fingerprint}


def test_an_epoch_of_groups_contains_every_person_once(tiny_records, tmp_path):
    grouped = ("data.batch_size=6", "data.images_per_person=3", "head.name=triplet")
    config = make_config(f"data.records={tiny_records}", f"run.dir={tmp_path}", *grouped)
    assert open_inputs(config, Comm()).epoch_images == 12 * 3


def test_synthetic_batches_need_no_records():
    inputs = open_inputs(make_synthetic(), TWO)
    assert inputs.records is None and inputs.sets == {}
    assert inputs.epoch_images == SYNTHETIC_STEPS * 8
    assert inputs.fingerprint() == {"images": 0, "people": 10, "image_size": [112, 112]}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        # The records do not exist, but the rules are checked first.
        (["data.decode=mixed"], r"^data\.decode: 'mixed' requires a GPU"),
        (["data.decode=mixed", "optim.fused_centres=true"], r"^configuration: 2 problems\n"),
        ([], r"^nowhere: "),
    ],
)
def test_rules_are_checked_before_files_are_opened(overrides, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as caught:
        open_inputs(make_config(f"run.dir={tmp_path}", *overrides), TWO)
    assert isinstance(caught.value, ConfigError) == bool(overrides)
    assert not list(tmp_path.iterdir())


def test_an_image_size_that_the_net_does_not_support_is_refused(make_records, tmp_path):
    records = make_records(3, 4, image_size=(8, 8))
    config = make_config(f"data.records={records}", f"run.dir={tmp_path}")
    with pytest.raises(ValueError, match="8x8"):
        open_inputs(config, Comm())


@pytest.mark.parametrize("key", ["train.pretrained={}", "eval.sets=[{}]"])
def test_missing_files_are_refused(key, tmp_path):
    config = make_synthetic(key.format(tmp_path / "nothing"))
    with pytest.raises((ValueError, OSError, Refused), match="nothing"):
        config, pretrained = open_pretrained(config, Comm())
        open_inputs(config, Comm(), pretrained)

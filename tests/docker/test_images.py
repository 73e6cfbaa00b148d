# SPDX-License-Identifier: Apache-2.0
"""What the Dockerfiles leave behind, read from them: the set-up is taken on a bare machine."""

from __future__ import annotations

import re

import pytest

from tests.docker.dockerfile import CPU, GPU, build, read, variables


@pytest.mark.parametrize(
    ("path", "target"), [(CPU, "run"), (CPU, "test"), (GPU, "wheels"), (GPU, "ngc")]
)
def test_nothing_is_left_to_set_up_where_an_image_runs(path, target, tmp_path):
    machine = build(path, target, tmp_path)
    machine.no_compilers()
    before = machine.calls
    assert machine.done("make -s setup") == ""
    if target == "test":
        assert machine.done("make -s setup-dev") == ""
    assert machine.calls == before


@pytest.mark.parametrize(("path", "target"), [(CPU, "run"), (GPU, "wheels")])
def test_an_image_that_lacks_any_stamp_is_not_built(path, target, tmp_path):
    machine = build(path, target, tmp_path)
    _, stages = read(path)
    (stage,) = [s for s in stages if any("pending" in step[1] for step in s.steps)]
    (check,) = [step for word, step in stage.steps if "pending" in step]
    machine.no_compilers()
    assert machine.run(check).returncode == 0
    folder = machine.train / machine.variables.get("VENV", ".venv")
    for name in ("run", "checkout", "horovod", "ops"):
        stamp = folder / f".stamp-{name}"
        content = stamp.read_text()
        stamp.unlink()
        assert machine.run(check).returncode != 0, name
        stamp.write_text(content)


@pytest.mark.parametrize("target", ["wheels", "ngc"])
def test_the_driver_is_asked_for_all_that_is_used(target):
    _, stages = read(GPU)
    found = variables(stages, target)
    assert found["NVIDIA_VISIBLE_DEVICES"] == "all"
    # video: libnvcuvid, for the JPEG hardware of A100 and H100.
    capabilities = found["NVIDIA_DRIVER_CAPABILITIES"].split(",")
    assert sorted(capabilities) == ["compute", "utility", "video"]


def test_the_base_that_runs_brings_no_cuda_and_the_python_of_the_builder():
    arguments, stages = read(GPU)
    assert arguments["RUN_BASE"] == "ubuntu:22.04"
    assert re.fullmatch(r"nvidia/cuda:11\.8\.\d+-devel-ubuntu22\.04", arguments["BASE"])
    assert stages[-1].base == "wheels"  # what is built without a target


def test_drivers_of_the_gpu_images():
    _, stages = read(GPU)
    wheels, ngc = (variables(stages, target) for target in ("wheels", "ngc"))
    assert wheels["IMAGE_MIN_DRIVER"] == "450.80.02" and "IMAGE_COMPAT_DRIVERS" not in wheels
    assert ngc["IMAGE_MIN_DRIVER"] == "545"
    assert ngc["IMAGE_COMPAT_DRIVERS"] == "470.57 525.85 535.86"

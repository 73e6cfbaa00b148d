# SPDX-License-Identifier: Apache-2.0
"""The set-up in the Dockerfiles is complete; its steps run on a simulated bare machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.docker.dockerfile import CPU, GPU, build, read, variables
from tests.launch.environment.bare_machine import ROOT


@pytest.mark.parametrize(
    ("path", "target"), [(CPU, "run"), (CPU, "test"), (GPU, "wheels"), (GPU, "ngc")]
)
def test_an_image_has_a_complete_set_up(path, target, tmp_path):
    machine = build(path, target, tmp_path)
    machine.no_compilers()
    before = machine.calls
    assert machine.done("make -s setup") == ""
    if target == "test":
        assert machine.done("make -s setup-dev") == ""
    assert machine.calls == before


@pytest.mark.parametrize(("path", "target"), [(CPU, "run"), (GPU, "wheels")])
def test_a_missing_stamp_fails_the_build(path, target, tmp_path):
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
def test_the_image_requests_the_driver_capabilities_that_it_uses(target):
    _, stages = read(GPU)
    found = variables(stages, target)
    assert found["NVIDIA_VISIBLE_DEVICES"] == "all"
    # video is libnvcuvid, for the JPEG hardware of A100 and H100.
    capabilities = found["NVIDIA_DRIVER_CAPABILITIES"].split(",")
    assert sorted(capabilities) == ["compute", "utility", "video"]


def test_the_run_base_has_no_cuda_and_the_python_of_the_builder():
    arguments, stages = read(GPU)
    assert arguments["RUN_BASE"] == "ubuntu:22.04"
    assert re.fullmatch(r"nvidia/cuda:11\.8\.\d+-devel-ubuntu22\.04", arguments["BASE"])
    assert stages[-1].base == "wheels"  # the default target


def test_make_gpu_has_all_its_imports_in_the_builder(tmp_path):
    # The builder runs `make gpu` before it copies all sources.
    _, stages = read(GPU)
    steps = next(s.steps for s in stages if s.name == "builder")
    copied = steps[: next(i for i, (_, step) in enumerate(steps) if "make gpu" in step)]
    for sources in [step.split()[:-1] for word, step in copied if word == "COPY"]:
        for source in sources:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy2
            copy(ROOT / source, tmp_path / source)
    imports = "import launch.environment.gpu, launch.environment.gpu_check"
    path = f"{tmp_path}:{sysconfig.get_path('purelib')}"
    # -S hides the checkout that is installed in the environment.
    command = [sys.executable, "-S", "-c", imports]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_gpu_images_declare_their_drivers():
    _, stages = read(GPU)
    wheels, ngc = (variables(stages, target) for target in ("wheels", "ngc"))
    assert wheels["IMAGE_MIN_DRIVER"] == "450.80.02" and "IMAGE_COMPAT_DRIVERS" not in wheels
    assert ngc["IMAGE_MIN_DRIVER"] == "545"
    assert ngc["IMAGE_COMPAT_DRIVERS"] == "470.57 525.85 535.86"

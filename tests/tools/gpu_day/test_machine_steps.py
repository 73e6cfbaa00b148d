# SPDX-License-Identifier: Apache-2.0
"""Steps that call programs of the machine, tested with stand-ins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import launch.environment.gpu
from tools.gpu_day import containers, environment_check, facts
from tools.gpu_day.commands import TooLong, run
from tools.gpu_day.gpu_watch import QUERY_INTERVAL_S, GpuWatch
from tools.gpu_day.results import Parts, Skipped, read_parts
from tools.gpu_day.setting import Setting

# Behaves like nvidia-smi of driver 470, which does not know all fields.
NVIDIA_SMI = r"""
case "$1" in
    --query-gpu=driver_version) printf '470.82.01\n470.82.01\n' ;;
    --query-gpu=memory.total) printf '16160 MiB\n16160 MiB\n' ;;
    --query-gpu=memory.used) printf '700\n900\n' ;;
    --query-compute-apps=*) printf 'GPU-1, 71\nGPU-2, 72\nGPU-2, 71\n' ;;
    --query-gpu=*) echo "Field is not a valid field to query."; exit 2 ;;
    -q | topo) echo details ;;
esac
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return ``program(name, script)``, which puts a script first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    return put


def measured(measure, setting: Setting) -> dict[str, tuple]:
    """Run a step; return (state, value) of each part by name."""
    parts = Parts(setting.scratch / "parts")
    measure(setting, parts)
    return {part.what: (part.state, part.value) for part in read_parts(setting.scratch / "parts")}


def test_machine_step_reports_gpus_and_host(program, make_driver, monkeypatch, tmp_path):
    program("nvidia-smi", NVIDIA_SMI)
    monkeypatch.setattr(launch.environment.gpu, "DRIVER", str(make_driver(70, 70)))
    found = measured(facts.measure, Setting(2, tmp_path, tmp_path))
    state, gpus = found["GPUs and driver"]
    assert state == "measured"
    assert gpus["GPUs"] == [
        "Fake GPU 0 with compute capability 7.0",
        "Fake GPU 1 with compute capability 7.0",
    ]
    assert gpus["driver_version"] == "470.82.01"
    assert gpus["memory.total"] == "16160 MiB"
    assert gpus["mig.mode.current"] == "unknown"
    assert found["host"][1].keys() >= {"cpu", "cores", "open_files", "mxnet", "commit"}


def test_machine_step_without_gpus(tmp_path):
    found = measured(facts.measure, Setting(0, tmp_path, tmp_path))
    assert found["GPUs and driver"] == ("skipped", "no GPU")
    assert found["host"][0] == "measured"


def test_the_check_depends_on_gpus_and_environments(tmp_path):
    command, kind = environment_check.check_command(1, tmp_path)
    assert kind == "gpu_check" and "launch.environment.gpu_check" in command
    assert (
        environment_check.check_command(0, tmp_path)[1] == "MXNet for the CPU (no .venv-gpu here)"
    )
    (tmp_path / ".venv-gpu").mkdir()
    (tmp_path / ".venv-gpu" / ".stamp-horovod").touch()
    command, kind = environment_check.check_command(0, tmp_path)
    assert kind == "gpu_check with the stand-in"
    assert command[0] == str(tmp_path / ".venv-gpu" / "bin" / "python")


def test_the_foreign_library_reports_that_it_is_loaded(tmp_path):
    folder = environment_check.compile_foreign(tmp_path / "foreign")
    library = folder / environment_check.FOREIGN_LIBRARY
    ended = run(["python3", "-c", f"import ctypes; ctypes.CDLL({str(library)!r})"], limit_s=60)
    assert environment_check.LOADED_MESSAGE in ended.text


def test_a_program_is_killed_after_its_time_limit(tmp_path):
    with pytest.raises(
        TooLong, match=r"^sh -c .*: the program must end within 0\.2 s, but was still"
    ):
        run(["sh", "-c", "sleep 600 & sleep 600"], limit_s=0.2)
    assert run(["sh", "-c", "kill -9 $$"], limit_s=60).code == 137
    assert (
        run(["sh", "-c", "echo $A; echo; exit 4"], limit_s=60, variables={"A": "b"}).text == "b\n\n"
    )


DOCKER = r"""
echo "$@" >>"$LOG"
case "$1 $2" in
    "image inspect") [ "${*: -1}" = faces-gpu ] ;;
    "ps -aq") echo c1 ;;
    "rm -f") ;;
    *)
        case "$*" in
            *" check "*) echo "GPUs: 2, driver 550" ;;
            *" make train "*) ;;
            *--shm-size*)
                mkdir -p "$RUNS/container-001"
                echo '{"images_per_second": 12.34}' >"$RUNS/container-001/summary.json" ;;
            *) echo "docker: 2 ranks need 256 MiB of shared memory"; exit 2 ;;
        esac ;;
esac
"""


def test_container_step_reports_each_run(program, monkeypatch, tmp_path):
    program("docker", DOCKER)
    monkeypatch.setattr(containers.signal, "signal", lambda *_: None)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    found = measured(containers.measure, Setting(2, Path("/set"), tmp_path))
    assert {state for state, _ in found.values()} == {"measured"}, found
    assert found["check"][1] == "code 0, GPUs: 2, driver 550"
    assert found["images/s, 2 ranks"][1] == 12.3
    assert found["refused without --shm-size"][1].startswith("code 2, docker: 2 ranks need 256 MiB")
    log = (tmp_path / "log").read_text()
    assert log.count("--gpus all") == 4 and log.count("-v /set:/data:ro") == 4
    assert log.endswith("rm -f c1\n")


def test_container_step_is_skipped_without_docker_or_image(program, monkeypatch, tmp_path):
    program("docker", DOCKER)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    with pytest.raises(Skipped, match="there is no Docker image other; build the image"):
        containers.require_image("other")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="docker is not installed"):
        containers.require_image("faces-gpu")


def test_gpu_watch_records_memory_and_contexts(program, tmp_path):
    program("nvidia-smi", NVIDIA_SMI)
    now = 0.0
    watch = GpuWatch(tmp_path, (20, 100), clock=lambda: now)

    def log(step: int) -> None:
        nonlocal now
        (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
        now += QUERY_INTERVAL_S
        watch(None)

    watch(None)  # nothing is logged yet
    assert not watch.contexts
    log(10)
    assert (watch.memory, watch.contexts) == ({}, {"GPU-1": 1, "GPU-2": 2})
    log(30)
    assert watch.memory == {20: 900}
    log(110)
    assert watch.memory == {20: 900, 100: 900}

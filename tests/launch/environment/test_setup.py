# SPDX-License-Identifier: Apache-2.0
"""Stages and requirements of setup.sh, with shell scripts in place of Python and g++."""

from __future__ import annotations

import pytest

from tests.launch.environment.bare_machine import BareMachine

SETUP = "bash launch/environment/setup.sh"


@pytest.fixture
def machine(tmp_path):
    """Return a machine with compilers and a complete environment."""
    made = BareMachine(tmp_path)
    made.compilers()
    assert "set-up: ready:" in made.done(SETUP)
    return made


def stamps(machine: BareMachine, venv: str = ".venv") -> dict[str, str]:
    files = sorted((machine.train / venv).glob(".stamp-*"))
    return {file.name.removeprefix(".stamp-"): file.read_text() for file in files}


@pytest.mark.parametrize("venv", [".venv", ".venv-gpu"])
def test_a_second_call_does_nothing(machine, venv):
    machine.done(f"{SETUP} {venv}")
    assert list(stamps(machine, venv)) == ["checkout", "horovod", "ops", "python", "run"]
    before = machine.calls
    assert machine.done(f"{SETUP} {venv}") == ""
    machine.no_compilers()
    assert machine.done(f"{SETUP} {venv}") == ""
    assert machine.calls == before


def test_the_environment_can_be_created_before_ops_is_copied(tmp_path):
    machine = BareMachine(tmp_path, sources=("requirements", "launch/environment"))
    machine.compilers()
    assert "set-up: ready:" in machine.done(SETUP)
    assert list(stamps(machine)) == ["horovod", "python", "run"]
    machine.copy("ops")
    assert "compiling the fused operators" in machine.done(SETUP)
    assert machine.done(SETUP) == ""


INSTALL = "-m pip --disable-pip-version-check install --quiet --no-index --no-deps"
INSTALL += " --no-build-isolation --editable ."


@pytest.mark.parametrize("venv", [".venv", ".venv-gpu"])
def test_a_missing_checkout_stage_runs_alone(machine, venv):
    machine.done(f"{SETUP} {venv}")
    (machine.train / venv / ".stamp-checkout").unlink()
    machine.no_compilers()
    before = machine.calls
    assert "installing" not in machine.done(f"{SETUP} {venv}")
    assert machine.calls[len(before) :] == [INSTALL]
    assert machine.done(f"{SETUP} {venv}") == ""


def test_the_checkout_is_reinstalled_after_a_move_or_a_change_of_pyproject(machine):
    machine.no_compilers()
    file = machine.train / "pyproject.toml"
    file.write_text(file.read_text() + "\n")
    machine.done(SETUP)
    assert machine.calls[-1] == INSTALL
    before = machine.calls
    moved = machine.folder / "moved"
    machine.train.rename(moved)
    machine.train.mkdir()
    assert "set-up: ready:" in machine.done(f"cd {moved} && {SETUP}")
    assert machine.calls[len(before) :] == [INSTALL]


def test_the_environment_can_be_created_before_pyproject_is_copied(tmp_path):
    machine = BareMachine(tmp_path, sources=("requirements", "launch/environment", "ops"))
    machine.compilers()
    machine.done(SETUP)
    assert INSTALL not in machine.calls and "checkout" not in stamps(machine)
    machine.copy("pyproject.toml")
    machine.no_compilers()
    machine.done(SETUP)
    assert machine.calls[-1] == INSTALL
    assert machine.done(SETUP) == ""


def test_byte_code_does_not_recompile_the_operators(machine):
    for path in ("ops/__pycache__", "ops/native/gpu/__pycache__", "ops/native/gpu"):
        folder = machine.train / path
        folder.mkdir(exist_ok=True)
        (folder / "nvcc.cpython-311.pyc").write_bytes(b"byte code")
        assert machine.done(SETUP) == "", path


def test_changed_sources_recompile_the_operators(machine):
    before = stamps(machine)
    for path in ("ops/new.py", "ops/native/gpu/new.cu", "ops/native/two words.h"):
        (machine.train / path).write_text("new")
        assert "compiling the fused operators" in machine.done(SETUP), path
        assert machine.calls[-1] == "-m ops"
        after = stamps(machine)
        assert [name for name in after if after[name] != before[name]] == ["ops"]
        before = after


@pytest.mark.parametrize("venv", [".venv", ".venv-gpu"])
@pytest.mark.parametrize("stamp", [None, "checksum of older sources"])
def test_without_a_compiler_the_operators_are_skipped(machine, venv, stamp):
    machine.done(f"{SETUP} {venv}")
    file = machine.train / venv / ".stamp-ops"
    file.unlink() if stamp is None else file.write_text(stamp)
    before = machine.calls
    machine.no_compilers()
    message = machine.done(f"{SETUP} {venv}")
    assert message == (
        "set-up: the fused operators are not compiled: no C++ compiler was found; install one: "
        "apt-get install g++\n"
    )
    assert machine.calls == before
    machine.compilers()
    assert "compiling the fused operators" in machine.done(f"{SETUP} {venv}")


def test_cxx_names_the_compiler_of_the_operators(machine):
    (machine.train / ".venv" / ".stamp-ops").unlink()
    machine.variables["CXX"] = "clang++"
    assert "are not compiled: no C++ compiler" in machine.done(SETUP)
    machine.program("clang++")
    assert "compiling the fused operators" in machine.done(SETUP)


def test_operators_that_do_not_compile_are_skipped(machine):
    python = machine.train / ".venv" / "bin" / "python"
    works = python.read_text()
    python.write_text('#!/bin/bash\n[ "$*" != "-m ops" ] || exit 2\n' + works.split("\n", 1)[1])
    (machine.train / ".venv" / ".stamp-ops").unlink()
    assert "set-up: ready:" in machine.done(SETUP)
    assert "ops" not in stamps(machine)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("no-venv", "'python3.11' has no venv module; install it: apt-get install python3.11-venv"),
        ("g++", "a C++ compiler is required to build Horovod, got none; install one: apt-get"),
    ],
)
def test_a_new_environment_requires_venv_and_a_compiler(tmp_path, missing, sentence):
    machine = BareMachine(tmp_path)
    machine.compilers()
    if missing == "g++":
        (machine.path / "g++").unlink()
    else:
        (machine.path / "no-venv").touch()
    assert machine.refusal(SETUP).startswith(f"set-up: {sentence}")
    assert not (machine.train / ".venv").exists()


def test_the_dev_stage_needs_no_compiler(machine):
    machine.no_compilers()
    assert "installing requirements/dev.txt" in machine.done(f"{SETUP} .venv '' dev")
    assert machine.calls[-2].endswith("--require-hashes -r requirements/dev.txt")
    assert machine.calls[-1].endswith("--no-deps --require-hashes -r requirements/align.txt")
    assert machine.done(f"{SETUP} .venv '' dev") == ""


def test_a_changed_lock_file_repeats_only_its_own_stage(machine):
    lock = machine.train / "requirements" / "horovod.txt"
    lock.write_text(lock.read_text() + "\n")
    machine.no_compilers()
    assert "a C++ compiler is required to build Horovod" in machine.refusal(SETUP)
    machine.compilers()
    before = stamps(machine)
    assert "installing" not in machine.done(SETUP)
    after = stamps(machine)
    assert [name for name in after if after[name] != before[name]] == ["horovod"]


def test_a_read_only_environment_is_refused_if_stages_are_pending(machine):
    # Root can write to every folder, so the script gets another condition.
    setup = machine.train / "launch" / "environment" / "setup.sh"
    setup.write_text(setup.read_text().replace('[ -w "$venv" ]', "[ -e /nowhere ]"))
    assert machine.done(SETUP) == ""
    assert "set-up: .venv: pending stages dev, and user" in machine.refusal(f"{SETUP} .venv '' dev")
    (machine.train / ".venv" / ".stamp-ops").unlink()
    assert "are not compiled: user" in machine.done(SETUP)
    assert "set-up: .venv: pending stages ops dev, and user" in machine.refusal(
        f"{SETUP} .venv '' dev"
    )


def test_the_environment_of_an_image_is_never_changed(machine):
    folder = machine.train / ".venv-gpu"
    folder.mkdir()
    (folder / ".stamp-image").touch()
    machine.no_compilers()
    before = machine.calls
    assert machine.done("make -s setup VENV=.venv-gpu") == ""
    sentence = machine.refusal("make -s setup-dev VENV=.venv-gpu")
    assert sentence.startswith("set-up: .venv-gpu belongs to the image, ")
    assert "got stage 'dev'" in sentence
    assert machine.calls == before

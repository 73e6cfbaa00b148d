# SPDX-License-Identifier: Apache-2.0
"""Which stages the set-up repeats and what it asks for, with scripts for Python and g++."""

from __future__ import annotations

import pytest

from tests.launch.environment.bare_machine import BareMachine

SETUP = "bash launch/environment/setup.sh"


@pytest.fixture
def machine(tmp_path):
    """Return a machine with compilers on which the environment has been made."""
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


def test_the_environment_is_made_before_the_operators_are_there(tmp_path):
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
def test_an_environment_of_older_sources_gets_the_checkout_alone(machine, venv):
    machine.done(f"{SETUP} {venv}")
    (machine.train / venv / ".stamp-checkout").unlink()
    machine.no_compilers()
    before = machine.calls
    assert "installing" not in machine.done(f"{SETUP} {venv}")
    assert machine.calls[len(before) :] == [INSTALL]
    assert machine.done(f"{SETUP} {venv}") == ""


def test_the_checkout_is_installed_again_where_it_has_moved_or_its_list_has_changed(machine):
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


def test_the_environment_is_made_before_the_list_of_packages_is_there(tmp_path):
    machine = BareMachine(tmp_path, sources=("requirements", "launch/environment", "ops"))
    machine.compilers()
    machine.done(SETUP)
    assert INSTALL not in machine.calls and "checkout" not in stamps(machine)
    machine.copy("pyproject.toml")
    machine.no_compilers()
    machine.done(SETUP)
    assert machine.calls[-1] == INSTALL
    assert machine.done(SETUP) == ""


def test_byte_code_is_no_source_of_the_operators(machine):
    for place in ("ops/__pycache__", "ops/native/gpu/__pycache__", "ops/native/gpu"):
        folder = machine.train / place
        folder.mkdir(exist_ok=True)
        (folder / "nvcc.cpython-311.pyc").write_bytes(b"byte code")
        assert machine.done(SETUP) == "", place


def test_a_source_of_the_operators_is(machine):
    before = stamps(machine)
    for place in ("ops/new.py", "ops/native/gpu/new.cu", "ops/native/two words.h"):
        (machine.train / place).write_text("new")
        assert "compiling the fused operators" in machine.done(SETUP), place
        assert machine.calls[-1] == "-m ops"
        after = stamps(machine)
        assert [name for name in after if after[name] != before[name]] == ["ops"]
        before = after


@pytest.mark.parametrize("venv", [".venv", ".venv-gpu"])
@pytest.mark.parametrize("stamp", [None, "that of older sources"])
def test_without_a_compiler_the_operators_are_no_condition(machine, venv, stamp):
    machine.done(f"{SETUP} {venv}")
    file = machine.train / venv / ".stamp-ops"
    file.unlink() if stamp is None else file.write_text(stamp)
    before = machine.calls
    machine.no_compilers()
    said = machine.done(f"{SETUP} {venv}")
    assert said == (
        "set-up: the fused operators stay as they are: no C++ compiler found; install it: "
        "apt-get install g++\n"
    )
    assert machine.calls == before
    machine.compilers()
    assert "compiling the fused operators" in machine.done(f"{SETUP} {venv}")


def test_the_compiler_of_the_operators_is_the_one_that_cxx_names(machine):
    (machine.train / ".venv" / ".stamp-ops").unlink()
    machine.variables["CXX"] = "clang++"
    assert "stay as they are: no C++ compiler" in machine.done(SETUP)
    machine.program("clang++")
    assert "compiling the fused operators" in machine.done(SETUP)


def test_operators_that_do_not_compile_are_no_fault(machine):
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
        ("g++", "no C++ compiler found (Horovod is built from source); install it: apt-get"),
    ],
)
def test_a_new_environment_asks_for_what_it_needs(tmp_path, missing, sentence):
    machine = BareMachine(tmp_path)
    machine.compilers()
    if missing == "g++":
        (machine.path / "g++").unlink()
    else:
        (machine.path / "no-venv").touch()
    assert machine.refusal(SETUP).startswith(f"set-up: {sentence}")
    assert not (machine.train / ".venv").exists()


def test_tests_and_lint_are_added_without_a_compiler(machine):
    machine.no_compilers()
    assert "installing requirements/dev.txt" in machine.done(f"{SETUP} .venv '' dev")
    assert machine.calls[-1].endswith("-r requirements/dev.txt")
    assert machine.done(f"{SETUP} .venv '' dev") == ""


def test_a_changed_lock_repeats_its_own_stage_alone(machine):
    lock = machine.train / "requirements" / "horovod.txt"
    lock.write_text(lock.read_text() + "\n")
    machine.no_compilers()
    assert "Horovod is built from source" in machine.refusal(SETUP)
    machine.compilers()
    before = stamps(machine)
    assert "installing" not in machine.done(SETUP)
    after = stamps(machine)
    assert [name for name in after if after[name] != before[name]] == ["horovod"]


def test_an_environment_that_cannot_be_written_to(machine):
    # Root may write anywhere, so the shell is asked by a test of its own.
    setup = machine.train / "launch" / "environment" / "setup.sh"
    setup.write_text(setup.read_text().replace('[ -w "$venv" ]', "[ -e /nowhere ]"))
    assert machine.done(SETUP) == ""
    assert "set-up: .venv lacks dev and user" in machine.refusal(f"{SETUP} .venv '' dev")
    (machine.train / ".venv" / ".stamp-ops").unlink()
    assert "stay as they are: user" in machine.done(SETUP)
    assert "set-up: .venv lacks ops dev and user" in machine.refusal(f"{SETUP} .venv '' dev")


def test_an_environment_of_an_image_is_left_alone(machine):
    folder = machine.train / ".venv-gpu"
    folder.mkdir()
    (folder / ".stamp-image").touch()
    machine.no_compilers()
    before = machine.calls
    assert machine.done("make -s setup VENV=.venv-gpu") == ""
    sentence = machine.refusal("make -s setup-dev VENV=.venv-gpu")
    assert sentence.startswith("set-up: .venv-gpu came with the image") and "got 'dev'" in sentence
    assert machine.calls == before

# SPDX-License-Identifier: Apache-2.0
"""Recorded versions and commit, and the line that --version prints."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from evaluation import __main__ as evaluation
from launch.config.cli import requested_text
from launch.environment import provenance
from launch.launchers import hosts, local, slurm

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that `provenance` regards as the checkout."""
    monkeypatch.delenv("SOURCE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "launch" / "environment" / "provenance.py")
    )
    return tmp_path


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"mxnet": "1.9.1"}, {"mxnet": "1.9.1"}),
        ({"mxnet-cu112": "1.9.1"}, {"mxnet": "1.9.1", "mxnet-cu112": "1.9.1"}),
        ({}, {"mxnet": "absent"}),
    ],
)
def test_the_version_of_mxnet_is_recorded_under_either_name(installed, expected, monkeypatch):
    monkeypatch.setattr(provenance, "version", versions_of(installed))
    found = provenance.versions()
    assert {k: v for k, v in found.items() if k.startswith("mxnet")} == expected
    assert found["numpy"] == "absent"


def versions_of(installed):
    """Return a stand-in for importlib.metadata.version that knows some packages."""

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    return version


def test_source_commit_precedes_git(checkout, monkeypatch):
    monkeypatch.setenv("SOURCE_COMMIT", "0123456789ab-dirty")
    assert provenance.commit() == "0123456789ab-dirty"


@pytest.mark.skipif(shutil.which("git") is None, reason="creates a repository with git")
def test_the_commit_of_a_checkout(checkout):
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run([*command, *arguments], check=True, stdout=-1, text=True).stdout

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert provenance.commit() == head[:12]


@pytest.mark.parametrize(
    ("installed", "commit", "line"),
    [
        ({"face-training": "1.2.3"}, "0123456789ab", "face-training 1.2.3 (0123456789ab)"),
        ({"face-training": "1.2.3"}, "", "face-training 1.2.3 (unknown commit)"),
        ({}, "0123456789ab", "face-training unknown version (0123456789ab)"),
    ],
)
def test_the_version_line(installed, commit, line, checkout, monkeypatch):
    monkeypatch.setattr(provenance, "version", versions_of(installed))
    monkeypatch.setenv("SOURCE_COMMIT", commit)
    assert provenance.version_line() == line


PROGRAMS = {
    "run_train": lambda argv: print(requested_text(argv, {}, {})),
    "launch.local": local.main,
    "launch.hosts": hosts.main,
    "launch.slurm": slurm.main,
    "evaluation": evaluation.main,
    "evaluation verify": lambda argv: evaluation.main(["verify", *argv]),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_prints_the_version_line(program, monkeypatch, capsys):
    monkeypatch.setenv("SOURCE_COMMIT", "0123456789ab")
    monkeypatch.setattr(provenance, "version", versions_of({"face-training": "1.2.3"}))
    try:
        PROGRAMS[program](["--version"])
    except SystemExit as leaving:
        assert leaving.code == 0
    assert capsys.readouterr() == ("face-training 1.2.3 (0123456789ab)\n", "")


def test_pyproject_has_the_name_of_the_project():
    assert f'name = "{provenance.PROJECT}"\n' in (ROOT / "pyproject.toml").read_text()

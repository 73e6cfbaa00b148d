# SPDX-License-Identifier: Apache-2.0
"""The commit that a run notes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from launch.environment import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that takes the place of this one."""
    monkeypatch.delenv("SOURCE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "launch" / "environment" / "provenance.py")
    )
    return tmp_path


def test_without_history_the_commit_is_unknown(checkout):
    assert provenance.commit() == "unknown"


def test_an_image_knows_what_it_was_built_from(checkout, monkeypatch):
    monkeypatch.setenv("SOURCE_COMMIT", "0123456789ab-dirty")
    assert provenance.commit() == "0123456789ab-dirty"


@pytest.mark.skipif(shutil.which("git") is None, reason="makes a history with git")
def test_a_checkout_is_asked(checkout):
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run([*command, *arguments], check=True, stdout=-1, text=True).stdout

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert provenance.commit() == head[:12]

# SPDX-License-Identifier: Apache-2.0
"""The search for a CUDA 11 compiler in horovod.sh, with shell scripts in place of compilers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ("bash", "sed", "mktemp", "rm", "dirname")


def make_nvcc(home: Path, release: str, takes: str = "g++") -> Path:
    """Create home/bin/nvcc of a CUDA release that supports a single C++ compiler."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && echo "Cuda compilation tools, release {release}, V{release}.8"\n'
        f'[ "$1" = -ccbin ] && {{ case "$2" in */{takes}) ;; *) exit 1 ;; esac; }}\n'
        "exit 0\n"
    )
    nvcc.chmod(0o755)
    return home


@pytest.fixture
def find_cuda(tmp_path):
    """Return ``find(on_path, CUDA_HOME=...)`` -> (CUDA home, C++ compiler, printed message)."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True)
        (tools / name).symlink_to(found.stdout.strip())
    for name in ("g++", "g++-11"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)

    def find(on_path: Path | None = None, **environment: str) -> tuple[str, str, str]:
        program = (
            'set -euo pipefail; text=""; say() { text=$*; }; . launch/environment/horovod.sh; '
            'find_cuda_11; printf "%s\\n" "$cuda_home" "$cuda_cxx" "$text"'
        )
        path = f"{on_path / 'bin'}:{tools}" if on_path else str(tools)
        done = subprocess.run(
            ["bash", "-c", program],
            cwd=ROOT,
            env={"PATH": path, "TMPDIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        home, cxx, message = done.stdout.splitlines()
        return home, Path(cxx).name, message

    return find


def has_cuda_11() -> bool:
    return any(Path("/usr/local").glob("cuda-11*/bin/nvcc"))


def test_cuda_11_is_found_on_the_path(find_cuda, tmp_path):
    home = make_nvcc(tmp_path / "cuda", "11.8")
    assert find_cuda(home) == (str(home), "g++", "")


def test_cuda_home_precedes_the_path(find_cuda, tmp_path):
    newer = make_nvcc(tmp_path / "newer", "13.0")
    home = make_nvcc(tmp_path / "home", "11.2")
    assert find_cuda(newer, CUDA_HOME=str(home))[0] == str(home)
    # If CUDA_HOME has another release, the PATH is still searched.
    assert find_cuda(home, CUDA_HOME=str(newer))[0] == str(home)


def test_the_first_compiler_that_nvcc_supports_is_used(find_cuda, tmp_path):
    home = make_nvcc(tmp_path / "cuda", "11.8", takes="g++-11")
    assert find_cuda(home) == (str(home), "g++-11", "")


@pytest.mark.skipif(has_cuda_11(), reason="this machine has CUDA 11 in /usr/local")
@pytest.mark.parametrize(
    ("release", "takes", "found"),
    [
        ("13.0", "g++", " of CUDA 13.0"),
        ("12.4", "g++", " of CUDA 12.4"),
        ("", "g++", " of CUDA unknown"),
        ("11.8", "g++-9", ", which supports neither g++ nor g++-11, g++-10 or g++-9"),
    ],
)
def test_an_unusable_nvcc_is_reported(release, takes, found, find_cuda, tmp_path):
    home = make_nvcc(tmp_path / "cuda", release, takes)
    assert find_cuda(home) == (
        *("", ""),
        "Horovod is built without NCCL, so several GPUs exchange gradients through host memory: "
        f"NCCL requires an nvcc of CUDA 11, got {home}/bin/nvcc{found} (docs/gpu.md)",
    )


@pytest.mark.skipif(has_cuda_11(), reason="this machine has CUDA 11 in /usr/local")
def test_a_missing_nvcc_is_reported(find_cuda):
    home, _, message = find_cuda()
    assert home == "" and message.endswith("of CUDA 11, got no nvcc (docs/gpu.md)")

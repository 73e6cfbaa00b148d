# SPDX-License-Identifier: Apache-2.0
"""Simulated container for the entrypoint, with stand-ins for the host's programs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint.sh"
TRAIN = ["horovodrun", "-np", "2", "python", "run_train.py", "--cfg", "demo.yaml"]
# Stand-in for a command: prints its arguments and HOME.
ECHO = 'echo "started: $(basename "$0") $*"; echo "home: $HOME"'

# Answers a query of several properties only if it knows all of them, as nvidia-smi does.
NVIDIA_SMI = r"""
[ "$COUNT" != 0 ] || { echo "No devices were found"; exit 6; }
for word in "$@"; do case $word in --query-gpu=*) properties=${word#*=} ;; esac; done
line=
for property in ${properties//,/ }; do
    case $property:$CAPABILITY in
        driver_version:*) line+=", $DRIVER" ;;
        compute_cap:?*) line+=", $CAPABILITY" ;;
        *) echo "Field \"$property\" is not a valid field to query."; exit 2 ;;
    esac
done
for ((i = 0; i < COUNT; i++)); do echo "${line#, }"; done
"""


@dataclass
class Machine:
    """Simulated container; ``start`` runs the entrypoint in it."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def program(self, name: str, script: str) -> None:
        """Add a stand-in that takes precedence over the host's program."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def shared_memory(self, mib: int) -> None:
        self.program("df", f"printf '1M-blocks\\n   {mib}M\\n'")

    def gpus(self, count: int, driver: str = "525.60.13", capability: str = "8.0") -> None:
        """Simulate the GPU image with GPUs; an empty capability simulates R470's nvidia-smi."""
        self.program("nvidia-smi", NVIDIA_SMI)
        self.variables |= {"COUNT": str(count), "DRIVER": driver, "CAPABILITY": capability}
        self.variables |= {
            "IMAGE_DEVICE": "gpu",
            "IMAGE_MIN_DRIVER": "450.80.02",
            "IMAGE_MAX_CAPABILITY": "8.9",
        }

    def start(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), *command],
            cwd=self.folder,
            env=environment | self.variables,
            capture_output=True,
            text=True,
        )

    def refusal(self, *command: str) -> str:
        """Return the sentence that refuses a command; check that it is one, with exit code 2."""
        done = self.start(*command)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.count("\n") == 1
        return done.stderr.strip()

    def starts(self, *command: str) -> str:
        """Return the output of a command that starts; check that it succeeds."""
        done = self.start(*command)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

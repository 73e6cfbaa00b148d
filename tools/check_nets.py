# SPDX-License-Identifier: Apache-2.0
"""Check every network of ``nets.NETS``:  python tools/check_nets.py [NET ...]

- counts: parameters and multiply-accumulates are within 1 % of the published ones.
- steps: a training step on small images gives every parameter a finite gradient.  Imperative and
  hybridized networks, plain and native operators give the same embeddings and gradient norms.
- files: a checkpoint, a symbol and an ONNX file give the same embeddings when they are read again.
- learning: 60 steps on 8 images of 4 identities bring the loss of a small network near zero.

The exit status is 1 if a network fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nets import ALIASES, NETS
from suggestions import listed
from tools.net_checks.checks import CHECKS
from tools.net_checks.published import PUBLISHED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 1 if a network fails, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help="names of networks (default: all)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.nets if name not in PUBLISHED]
    if unknown:
        print(f"check_nets: unknown net {unknown[0]!r}; {listed(unknown[0], PUBLISHED)}",
              file=sys.stderr)  # fmt: skip
        return 2
    names = options.nets or own_nets()
    if len(names) == 1:
        return int(not run(names[0], options.only))
    # Each network has its own process: the end of the process frees the memory of the network, and
    # a crash does not end the checks of other networks.
    codes = [
        subprocess.run([sys.executable, __file__, name, "--only", *options.only]).returncode
        for name in names
    ]
    return int(any(codes))


def own_nets() -> list[str]:
    """Return the names of all networks, and of the aliases that have their own published size."""
    return [name for name in NETS if name not in ALIASES or name in PUBLISHED]


def run(name: str, checks: Sequence[str]) -> bool:
    """Print the result of each check of a network; return whether the network passes all checks."""
    good = True
    for check in checks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                text = CHECKS[check](name, Path(folder))
            except ValueError as error:
                good, text = False, f"FAILED {error}"
        print(f"{name:22} {check:9} {text}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())

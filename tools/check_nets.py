# SPDX-License-Identifier: Apache-2.0
"""Check all networks of ``nets.NETS``, or only the named ones.

python tools/check_nets.py [NET ...] [--only CHECK ...]

The checks are:

- counts: the numbers of parameters and multiply-accumulates are within 1 % of the published ones.
- steps: a training step on small images gives every parameter a finite gradient that is not zero.
  The embeddings and the norm of the gradient agree between imperative and hybridized execution,
  and between MXNet's operators (plain) and our compiled operators (native).
- files: the network is written as a checkpoint, as an MXNet symbol and as an ONNX file.  The models
  that are read from these files give the embeddings of the network.
- learning: 60 training steps on 8 images of 4 identities reduce the loss to at most 0.1.  The
  network is built with reduced width and depth for this check, if it has settings for them.

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
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CHECKS,
        default=list(CHECKS),
        metavar="CHECK",
        help=f"run only these checks, of {', '.join(CHECKS)} (default: all)",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.nets if name not in PUBLISHED]
    if unknown:
        print(f"check_nets: unknown net {unknown[0]!r}; {listed(unknown[0], PUBLISHED)}",
              file=sys.stderr)  # fmt: skip
        return 2
    names = options.nets or own_nets()
    if len(names) == 1:
        return int(not run(names[0], options.only))
    # Check each network in a separate process: the end of the process frees the memory of the
    # network, and a crash does not end the checks of other networks.
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

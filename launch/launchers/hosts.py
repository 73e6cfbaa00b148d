# SPDX-License-Identifier: Apache-2.0
"""Start ranks on several hosts:  python -m launch.hosts -H a:8,b:8 --cfg NAME.yaml [overrides]

The launcher runs horovodrun over ssh and prints the same lines as launch.local.  Every host needs
the project folder at the same path, with the same .venv (docs/clusters.md).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.config.paths import home_path
from launch.environment.open_files import OpenFilesError, require_open_files
from launch.launchers.caller_paths import resolve_arguments
from launch.launchers.horovod_cache import cache_options
from launch.launchers.horovodrun_output import HorovodrunReader
from launch.launchers.options import (
    INTERFACE_HELP,
    Host,
    Parser,
    UsageError,
    check_configuration,
    format_plan,
    interface_name,
    port_number,
    shell_environment,
)
from launch.launchers.supervise import ROOT, TRAIN, supervise

# Entries HOST:RANKS with a host name that Horovod accepts.  A name must not start with "-", which
# ssh would parse as an option.
_HOST = re.compile(r"^([A-Za-z0-9_][\w.-]*):([0-9]+)$", re.ASCII)

STRICT_SSH = Path(__file__).with_name("strict_ssh")
"""Folder with a program ``ssh`` that refuses hosts whose keys are not in known_hosts."""


def main(argv: Sequence[str]) -> int:
    """Start the ranks, wait until all have ended and return the exit code of the run."""
    parser = Parser("launch.hosts", "Start ranks on several hosts over ssh.")
    parser.add_argument(
        "-H", "--hosts", required=True, help="hosts, each with its number of ranks: a:8,b:8"
    )
    parser.add_argument(
        "-np",
        "--ranks",
        type=int,
        help="total number of ranks (default: the sum of the numbers in -H)",
    )
    parser.add_argument("--network-interface", type=interface_name, help=INTERFACE_HELP)
    parser.add_argument(
        "--ssh-port",
        type=port_number,
        help="ssh port of all hosts (default: from the ssh configuration)",
    )
    parser.add_argument(
        "--ssh-identity-file", type=home_path, help="file with the private key for ssh"
    )
    parser.add_argument(
        "--ssh-strict-host-keys",
        action="store_true",
        help="refuse hosts whose keys are not in known_hosts (default: accept the key of any host)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the configuration, print the hosts, ranks and command, then exit",
    )
    try:
        options, arguments = parser.split(argv)
        hosts = limit_ranks(parse_hosts(options.hosts), options.ranks)
        check_folder(ROOT)
        check_identity(options.ssh_identity_file)
        arguments = resolve_arguments(arguments, Path.cwd(), ROOT)
        require_open_files(sum(host.ranks for host in hosts))
    except (UsageError, OpenFilesError) as error:
        print(error, file=sys.stderr)
        return 2
    command = build_command(
        hosts,
        arguments,
        options.network_interface,
        options.ssh_port,
        options.ssh_identity_file,
    )
    if options.dry_run:
        if code := check_configuration(TRAIN, arguments, ROOT):
            return code
        print(format_plan(hosts, command, ROOT))
        return 0
    # horovodrun sends this environment to every host.  The launcher does not set OMP_NUM_THREADS,
    # because each rank sets it from the cores of its own host (launch/ranks/threads.py).
    environment = {**shell_environment(os.environ), "PYTHONUNBUFFERED": "1"}
    if options.ssh_strict_host_keys:
        environment["PATH"] = f"{STRICT_SSH}:{environment.get('PATH', os.defpath)}"
    names = [host.name for host in hosts for _ in range(host.ranks)]
    return supervise(command, environment, HorovodrunReader(names))


def parse_hosts(text: str) -> list[Host]:
    """Parse a list of hosts such as ``a:8,b:8``.

    Raises
    ------
    UsageError
        If an entry has no host or no number of ranks above 0, or if a host appears twice.
    """
    hosts: dict[str, Host] = {}
    for entry in text.split(","):
        match = _HOST.match(entry.strip())
        if not match or int(match[2]) == 0:
            raise UsageError(
                f"launch.hosts: -H requires a host and its number of ranks, above 0, in each "
                f"entry, got {entry!r}; write -H a:8,b:8"
            )
        name = match[1]
        if name in hosts:
            raise UsageError(
                f"launch.hosts: -H contains a duplicate host, got {name!r} in {text!r}; "
                f"write {name}:N once, with all its ranks"
            )
        hosts[name] = Host(name, int(match[2]))
    return list(hosts.values())


def limit_ranks(hosts: Sequence[Host], ranks: int | None) -> list[Host]:
    """Distribute ``ranks`` ranks over the hosts: fill the first host, then the next.

    horovodrun 0.28 with Gloo starts a rank on every slot of -H and ignores -np.  The launcher
    therefore passes exactly as many slots as ranks.

    Parameters
    ----------
    hosts
        Hosts with their slots, the maximum number of ranks of each host.
    ranks
        Total number of ranks; None starts a rank on every slot.

    Raises
    ------
    UsageError
        If ``ranks`` is below 1, or above the number of slots of all hosts.
    """
    slots = sum(host.ranks for host in hosts)
    remaining = slots if ranks is None else ranks
    if not 0 < remaining <= slots:
        raise UsageError(
            f"launch.hosts: -np must be from 1 to {slots}, the sum of -H, got {ranks}; "
            "omit -np to start all ranks of -H"
        )
    used = []
    for host in hosts:
        if remaining:
            used.append(Host(host.name, min(remaining, host.ranks)))
            remaining -= used[-1].ranks
    return used


def check_folder(folder: Path) -> None:
    """Check that the path of the project needs no shell quotes.

    Horovod inserts the path into a ``cd`` command without quotes.

    Raises
    ------
    UsageError
        If the path contains other characters than letters, digits and ``/ . _ + @ % : , -``.
    """
    if not re.fullmatch(r"[\w/.+@%:,-]+", str(folder)):
        raise UsageError(
            "launch.hosts: the path of the project may contain only letters, digits and the marks "
            f"/._+@%:,- but no others, got {str(folder)!r}; move the project, because Horovod does "
            "not quote its path"
        )


def check_identity(path: Path | None) -> None:
    """Raise UsageError if the private key of ssh is given but cannot be read."""
    if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
        raise UsageError(
            f"launch.hosts: --ssh-identity-file must be a readable file, got {str(path)!r}; check "
            "the path and its permissions"
        )


def build_command(
    hosts: Sequence[Host],
    arguments: Sequence[str],
    interface: str | None = None,
    ssh_port: int | None = None,
    ssh_identity_file: Path | None = None,
) -> list[str]:
    """Return the command line of horovodrun.

    Parameters
    ----------
    hosts
        Hosts with the number of ranks to start on each.
    arguments
        Arguments of run_train.py.
    interface
        Name of a network interface that all hosts have; None lets horovodrun detect one.
    ssh_port, ssh_identity_file
        Options of ssh; None uses the ssh configuration.
    """
    command = [str(Path(sys.executable).with_name("horovodrun")), "--gloo", *cache_options()]
    command += ["-np", str(sum(host.ranks for host in hosts))]
    command += ["-H", ",".join(f"{host.name}:{host.ranks}" for host in hosts)]
    if interface:
        command += ["--network-interfaces", interface]
    if ssh_port is not None:
        command += ["--ssh-port", str(ssh_port)]
    if ssh_identity_file is not None:
        # horovodrun runs in the project folder, so a relative path must be resolved here.
        # horovodrun inserts the path into a shell command without quotes.
        command += ["--ssh-identity-file", shlex.quote(str(ssh_identity_file.absolute()))]
    return [*command, *TRAIN, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

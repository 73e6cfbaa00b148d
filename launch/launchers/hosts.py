# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of several hosts:  python -m launch.hosts -H a:8,b:8 --cfg NAME.yaml [overrides]

Runs horovodrun over ssh and shows what launch.local shows.  The project's folder must be at the
same path on every host, with the same .venv; docs/clusters.md says more.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.config.paths import home_path
from launch.launchers.options import Host, Parser, UsageError, describe
from launch.launchers.supervise import ROOT, TRAIN, HorovodrunReader, supervise

# What Horovod takes as a host, but no leading "-", which ssh would take for an option.
_HOST = re.compile(r"^([A-Za-z0-9_][\w.-]*):([0-9]+)$", re.ASCII)


def main(argv: Sequence[str]) -> int:
    """Run the ranks to their end; return their exit code."""
    parser = Parser("launch.hosts", "Start the ranks of several hosts over ssh.")
    parser.add_argument("-H", "--hosts", required=True, help="host:ranks,host:ranks,...")
    parser.add_argument("-np", "--ranks", type=int, help="of all hosts together (all slots)")
    parser.add_argument("--network-interface", help="for Gloo and NCCL, such as eth0 (searched)")
    parser.add_argument("--ssh-port", type=int, help="of the hosts (22)")
    parser.add_argument("--ssh-identity-file", type=home_path, help="private key")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, start nothing")
    try:
        options, arguments = parser.split(argv)
        hosts = take(parse_hosts(options.hosts), options.ranks)
        check_folder(ROOT)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    full = command(
        hosts,
        arguments,
        options.network_interface,
        options.ssh_port,
        options.ssh_identity_file,
    )
    if options.dry_run:
        print(describe(hosts, full, ROOT))
        return 0
    # The whole environment travels on horovodrun's ssh command lines. OMP_NUM_THREADS is left to
    # the ranks, who know the cores of their own host; the user's own value travels with the rest.
    return supervise(full, {**os.environ, "PYTHONUNBUFFERED": "1"}, HorovodrunReader())


def parse_hosts(text: str) -> list[Host]:
    """Return the hosts of ``a:8,b:8``.

    Raises
    ------
    UsageError
        If it is not a list of hosts with a number of ranks above 0 each, or names a host twice.
    """
    hosts: dict[str, Host] = {}
    for entry in text.split(","):
        match = _HOST.match(entry.strip())
        if not match or int(match[2]) == 0:
            raise UsageError(
                f"launch.hosts: -H must name a host and its number of ranks above 0, "
                f"got {entry!r}; write -H a:8,b:8"
            )
        name = match[1]
        if name in hosts:
            raise UsageError(
                f"launch.hosts: -H names a host twice, got {name!r} in {text!r}; "
                f"write {name}:N once, with all its ranks"
            )
        hosts[name] = Host(name, int(match[2]))
    return list(hosts.values())


def take(hosts: Sequence[Host], ranks: int | None) -> list[Host]:
    """Return the first hosts that hold ``ranks`` ranks, the last one cut to what is left.

    horovodrun 0.28 with Gloo starts a rank on every slot, whatever its -np says; so the slots
    that it is given are exactly the ranks.

    Raises
    ------
    UsageError
        If there are too few slots.
    """
    slots = sum(host.ranks for host in hosts)
    left = slots if ranks is None else ranks
    if not 0 < left <= slots:
        raise UsageError(
            f"launch.hosts: -np must be from 1 to the {slots} slots of -H, got {ranks}; "
            "leave -np out to use all"
        )
    taken = []
    for host in hosts:
        if left:
            taken.append(Host(host.name, min(left, host.ranks)))
            left -= taken[-1].ranks
    return taken


def check_folder(folder: Path) -> None:
    """Refuse a folder that Horovod's ``cd`` on other hosts would not find: it is not quoted.

    Raises
    ------
    UsageError
        If the path holds more than letters, digits and ``/ . _ + @ % : , -``.
    """
    if not re.fullmatch(r"[\w/.+@%:,-]+", str(folder)):
        raise UsageError(
            "launch.hosts: the project's folder must have a path without blanks and quotes, "
            f"got {str(folder)!r}; move it, Horovod cannot change to it on other hosts"
        )


def command(
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
        With exactly as many slots as ranks.
    arguments
        Of run_train.py.
    interface
        Network interface that all hosts have; None lets horovodrun search one.
    ssh_port, ssh_identity_file
        For ssh; None leaves them to ssh's own configuration.
    """
    full = [str(Path(sys.executable).with_name("horovodrun")), "--gloo"]
    full += ["-np", str(sum(host.ranks for host in hosts))]
    full += ["-H", ",".join(f"{host.name}:{host.ranks}" for host in hosts)]
    if interface:
        full += ["--network-interfaces", interface]
    if ssh_port is not None:
        full += ["--ssh-port", str(ssh_port)]
    if ssh_identity_file is not None:
        # horovodrun is started in the project's folder, not in the user's.
        full += ["--ssh-identity-file", str(ssh_identity_file.expanduser().absolute())]
    return [*full, *TRAIN, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""What Slurm's variables say about a job: nodes, ranks per node, the place of one rank.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from launch.launchers.options import Host, UsageError

_TASKS = re.compile(r"^(\d+)(?:\(x(\d+)\))?$")
_RANGE = re.compile(r"^(\d+)(?:-(\d+))?$")


def expand_nodes(text: str) -> list[str]:
    """Return the nodes of a list such as ``gpu[01-03,07],login1``.

    Raises
    ------
    UsageError
        If it is not such a list.
    """
    nodes = [node for part in _split(text) for node in _expand(part)]
    if not all(nodes):
        raise _unreadable("node list", text, "gpu[01-03,07],login1")
    return nodes


def expand_tasks(text: str) -> list[int]:
    """Return the tasks of every node of ``8(x2),4``: 8, 8, 4.

    Raises
    ------
    UsageError
        If it is not such a list.
    """
    tasks: list[int] = []
    for part in text.split(","):
        match = _TASKS.match(part)
        if not match:
            raise _unreadable("tasks per node", text, "8(x2),4")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def read_job(variables: Mapping[str, str]) -> list[Host]:
    """Return the nodes of the job that this process was started in, with the ranks of each.

    Raises
    ------
    UsageError
        Outside a job; if the job does not say how many tasks it has; if every task runs this.
    """
    nodes = variables.get("SLURM_JOB_NODELIST") or variables.get("SLURM_NODELIST")
    if "SLURM_JOB_ID" not in variables or not nodes:
        raise UsageError(
            "launch.slurm: runs inside a Slurm job, got no SLURM_JOB_ID; start it from a job file "
            "(docs/clusters.md) or after salloc, or use launch.local or launch.hosts"
        )
    if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise UsageError(
            "launch.slurm: starts all ranks itself, got started by srun as "
            f"{variables['SLURM_STEP_NUM_TASKS']} tasks; call it once, without srun"
        )
    if not {"SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"} & variables.keys():
        raise UsageError(
            "launch.slurm: the job does not say how many ranks, got no SLURM_NTASKS; "
            "give sbatch or salloc --ntasks-per-node, one task per GPU"
        )
    names = expand_nodes(nodes)
    tasks = expand_tasks(variables.get("SLURM_TASKS_PER_NODE", ""))
    return _pair(names, tasks, variables.get("SLURM_NTASKS"))


def rank_environment(
    variables: Mapping[str, str], address: str, port: int, interface: str
) -> dict[str, str]:
    """Return what Horovod reads to find its place, from the variables that srun gives a task.

    Parameters
    ----------
    variables
        The environment of the task.
    address, port
        Of Horovod's rendezvous server.
    interface
        The network interface of this node that Gloo and NCCL use.

    Raises
    ------
    UsageError
        If the ranks are not numbered node by node.
    """
    hosts = _pair(
        expand_nodes(variables.get("SLURM_STEP_NODELIST") or variables["SLURM_JOB_NODELIST"]),
        expand_tasks(
            variables.get("SLURM_STEP_TASKS_PER_NODE") or variables["SLURM_TASKS_PER_NODE"]
        ),
        variables["SLURM_NTASKS"],
    )
    rank, node, local_rank = (
        int(variables[name]) for name in ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID")
    )
    expected = sum(host.ranks for host in hosts[:node]) + local_rank
    if rank != expected or local_rank >= hosts[node].ranks:
        raise UsageError(
            f"launch.slurm: ranks are numbered node by node, got rank {rank} for task {local_rank} "
            f"of node {node}; unset SLURM_DISTRIBUTION and give no --distribution"
        )
    # Ranks with this local rank, one per node that has so many: Horovod's "cross" group.
    across = [number for number, host in enumerate(hosts) if host.ranks > local_rank]
    environment = {
        "HOROVOD_RANK": rank,
        "HOROVOD_SIZE": sum(host.ranks for host in hosts),
        "HOROVOD_LOCAL_RANK": local_rank,
        "HOROVOD_LOCAL_SIZE": hosts[node].ranks,
        "HOROVOD_CROSS_RANK": across.index(node),
        "HOROVOD_CROSS_SIZE": len(across),
        "HOROVOD_HOSTNAME": hosts[node].name,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": port,
        "HOROVOD_GLOO_IFACE": interface,
        "NCCL_SOCKET_IFNAME": variables.get("NCCL_SOCKET_IFNAME", interface),
        "PYTHONUNBUFFERED": "1",
    }
    # With --cpus-per-task Slurm binds a task to its own cores, which are not to be shared again
    # (launch/ranks/threads.py); the user's own OMP_NUM_THREADS wins.
    cores = variables.get("OMP_NUM_THREADS") or variables.get("SLURM_CPUS_PER_TASK")
    if cores:
        environment["OMP_NUM_THREADS"] = cores
    return {name: str(value) for name, value in environment.items()}


def _pair(names: Sequence[str], tasks: Sequence[int], total: str | None) -> list[Host]:
    if len(names) != len(tasks) or (total is not None and sum(tasks) != int(total)):
        raise UsageError(
            f"launch.slurm: nodes and tasks do not fit together, got {len(names)} nodes, "
            f"{list(tasks)} tasks per node and SLURM_NTASKS {total}; give --nodes and "
            "--ntasks-per-node"
        )
    return [Host(name, count) for name, count in zip(names, tasks, strict=True)]


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    return re.split(r",(?![^\[]*\])", text)


def _expand(part: str) -> list[str]:
    """Expand the first bracket of one entry, and the others by recursion."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, bracket, after = rest.partition("]")
    if not bracket:
        raise _unreadable("node list", part, "gpu[01-03,07],login1")
    nodes = []
    for entry in ranges.split(","):
        match = _RANGE.match(entry)
        if not match:
            raise _unreadable("node list", part, "gpu[01-03,07],login1")
        first, last = match[1], match[2] or match[1]
        for number in range(int(first), int(last) + 1):
            nodes += [f"{before}{number:0{len(first)}}{tail}" for tail in _expand(after)]
    return nodes


def _unreadable(what: str, text: str, example: str) -> UsageError:
    return UsageError(
        f"launch.slurm: the {what} of the job cannot be read, got {text!r}; "
        f"expected a form like {example}"
    )

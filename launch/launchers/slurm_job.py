# SPDX-License-Identifier: Apache-2.0
"""Parse the nodes and ranks of a Slurm job from Slurm's environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from launch.launchers.options import Host, UsageError

_TASKS = re.compile(r"^(\d+)(?:\(x(\d+)\))?$")
_RANGE = re.compile(r"^(\d+)(?:-(\d+))?$")


def expand_nodes(text: str) -> list[str]:
    """Expand Slurm's node list, such as ``gpu[01-03,07],login1``, to a list of node names.

    Raises
    ------
    UsageError
        If the text is not a node list.
    """
    nodes = [node for part in _split(text) for node in _expand(part)]
    if not all(nodes):
        raise _format_error("node list", text, "gpu[01-03,07],login1")
    return nodes


def expand_tasks(text: str) -> list[int]:
    """Expand Slurm's tasks per node, such as ``8(x2),4``, to one number per node: 8, 8, 4.

    Raises
    ------
    UsageError
        If the text does not have this format.
    """
    tasks: list[int] = []
    for part in text.split(","):
        match = _TASKS.match(part)
        if not match:
            raise _format_error("tasks per node", text, "8(x2),4")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def read_job(variables: Mapping[str, str]) -> list[Host]:
    """Return the nodes of the current job with the number of ranks of each.

    Raises
    ------
    UsageError
        If there is no job, if the job does not specify its number of tasks, or if srun started
        this process as several tasks.
    """
    nodes = variables.get("SLURM_JOB_NODELIST") or variables.get("SLURM_NODELIST")
    if "SLURM_JOB_ID" not in variables or not nodes:
        raise UsageError(
            "launch.slurm: must run inside a Slurm job, got no SLURM_JOB_ID; start it from a job "
            "file (docs/clusters.md) or after salloc, or use launch.local or launch.hosts"
        )
    if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise UsageError(
            "launch.slurm: must run as one process, which starts all ranks, got "
            f"{variables['SLURM_STEP_NUM_TASKS']} tasks from srun; call it without srun"
        )
    if not {"SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"} & variables.keys():
        raise UsageError(
            "launch.slurm: the job does not specify its number of tasks, got no SLURM_NTASKS; "
            "pass --ntasks-per-node to sbatch or salloc, with one task per GPU"
        )
    names = expand_nodes(nodes)
    tasks = expand_tasks(variables.get("SLURM_TASKS_PER_NODE", ""))
    return _pair(names, tasks, variables.get("SLURM_NTASKS"))


def rank_environment(
    variables: Mapping[str, str], address: str, port: int, interface: str
) -> dict[str, str]:
    """Return the environment variables of Horovod for one task of srun.

    Parameters
    ----------
    variables
        Environment variables of the task.
    address, port
        Address and port of Horovod's rendezvous server.
    interface
        Name of the network interface of this node for Gloo and NCCL.

    Raises
    ------
    UsageError
        If the ranks of a node are not consecutive.
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
            f"launch.slurm: the ranks of a node must be consecutive, got rank {rank} for task "
            f"{local_rank} of node {node}; unset SLURM_DISTRIBUTION and omit --distribution"
        )
    # Horovod's "cross" group contains the ranks with the same local rank: one rank of each node
    # that has enough ranks.
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
    # With --cpus-per-task Slurm binds each task to its own cores.  Without OMP_NUM_THREADS,
    # launch/ranks/threads.py would divide these cores by the number of ranks again.  A value that
    # the user has set has precedence.
    cores = variables.get("OMP_NUM_THREADS") or variables.get("SLURM_CPUS_PER_TASK")
    if cores:
        environment["OMP_NUM_THREADS"] = cores
    return {name: str(value) for name, value in environment.items()}


def _pair(names: Sequence[str], tasks: Sequence[int], total: str | None) -> list[Host]:
    if len(names) != len(tasks) or (total is not None and sum(tasks) != int(total)):
        raise UsageError(
            f"launch.slurm: the numbers of nodes and tasks contradict each other, got "
            f"{len(names)} nodes, {list(tasks)} tasks per node and SLURM_NTASKS {total}; pass "
            "--nodes and --ntasks-per-node to sbatch or salloc"
        )
    return [Host(name, count) for name, count in zip(names, tasks, strict=True)]


def _split(text: str) -> list[str]:
    """Split Slurm's node list at the commas outside brackets."""
    return re.split(r",(?![^\[]*\])", text)


def _expand(part: str) -> list[str]:
    """Expand one entry of Slurm's node list, such as ``gpu[1-2]``, to node names.

    The function expands the first pair of brackets and calls itself for further pairs.
    """
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, bracket, after = rest.partition("]")
    if not bracket:
        raise _format_error("node list", part, "gpu[01-03,07],login1")
    nodes = []
    for entry in ranges.split(","):
        match = _RANGE.match(entry)
        if not match:
            raise _format_error("node list", part, "gpu[01-03,07],login1")
        first, last = match[1], match[2] or match[1]
        for number in range(int(first), int(last) + 1):
            nodes += [f"{before}{number:0{len(first)}}{tail}" for tail in _expand(after)]
    return nodes


def _format_error(what: str, text: str, example: str) -> UsageError:
    return UsageError(
        f"launch.slurm: the {what} of the job has an unknown format, got {text!r}; "
        f"expected a format like {example}"
    )

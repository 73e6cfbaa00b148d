# SPDX-License-Identifier: Apache-2.0
"""Node lists, tasks per node and ranks, parsed from Slurm's variables."""

from __future__ import annotations

import pytest

from launch.launchers.options import Host, UsageError
from launch.launchers.slurm_job import expand_nodes, expand_tasks, rank_environment, read_job

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "gpu[01-03]",
    "SLURM_NTASKS": "7",
    "SLURM_TASKS_PER_NODE": "3(x2),1",
}


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("login1", ["login1"]),
        ("a,b", ["a", "b"]),
        ("gpu[01-03,07],login1", ["gpu01", "gpu02", "gpu03", "gpu07", "login1"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[01,03]", ["r1n01", "r1n03", "r2n01", "r2n03"]),
        ("x-[1-2]-ib.lan,y", ["x-1-ib.lan", "x-2-ib.lan", "y"]),
    ],
)
def test_node_lists_are_expanded(text, nodes):
    assert expand_nodes(text) == nodes


@pytest.mark.parametrize("text", ["", "a,", "gpu[01-03", "gpu[]", "gpu[a-b]", "gpu[1-2-3]"])
def test_a_malformed_node_list_is_refused(text):
    with pytest.raises(UsageError, match="^launch.slurm: the node list of the job has an unknown "):
        expand_nodes(text)


@pytest.mark.parametrize(
    ("text", "tasks"), [("8", [8]), ("8(x2),4", [8, 8, 4]), ("2,1,2(x3)", [2, 1, 2, 2, 2])]
)
def test_tasks_per_node_are_expanded(text, tasks):
    assert expand_tasks(text) == tasks


@pytest.mark.parametrize("text", ["", "8(x2", "8x2", "8,,4", "a"])
def test_malformed_tasks_per_node_are_refused(text):
    with pytest.raises(UsageError, match="tasks per node of the job has an unknown format, got "):
        expand_tasks(text)


def test_a_job_has_nodes_with_ranks():
    assert read_job(JOB) == [Host("gpu01", 3), Host("gpu02", 3), Host("gpu03", 1)]
    per_node = {k: v for k, v in JOB.items() if k != "SLURM_NTASKS"}
    assert read_job({**per_node, "SLURM_NTASKS_PER_NODE": "3"}) == read_job(JOB)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"SLURM_JOB_ID": None}, "must run inside a Slurm job, got no SLURM_JOB_ID; start it"),
        ({"SLURM_JOB_NODELIST": None}, "must run inside a Slurm job, got no SLURM_JOB_ID; "),
        (
            {"SLURM_NTASKS": None},
            "the job does not specify its number of tasks, got no SLURM_",
        ),
        (
            {"SLURM_NTASKS": "8"},
            "the numbers of nodes and tasks contradict each other, ",
        ),
        (
            {"SLURM_TASKS_PER_NODE": "3(x2)"},
            "the numbers of nodes and tasks contradict each other, ",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "2"},
            "must run as one process, which starts all ranks, got 2 ",
        ),
    ],
)
def test_an_unsuitable_job_is_refused(change, sentence):
    variables = {k: v for k, v in {**JOB, **change}.items() if v is not None}
    with pytest.raises(UsageError) as error:
        read_job(variables)
    assert str(error.value).startswith(f"launch.slurm: {sentence}")


def environment_of(rank: int, node: int, local_rank: int, **more: str) -> dict[str, str]:
    task = {"SLURM_PROCID": rank, "SLURM_NODEID": node, "SLURM_LOCALID": local_rank}
    variables = {**JOB, **{k: str(v) for k, v in task.items()}, **more}
    return rank_environment(variables, "10.0.0.1", 5000, "eth0")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        # (rank, node, local rank) -> local size, cross rank, cross size
        ((0, 0, 0), (3, 0, 3)),
        ((4, 1, 1), (3, 1, 2)),  # the third node has no local rank 1
        ((5, 1, 2), (3, 1, 2)),
        ((6, 2, 0), (1, 2, 3)),
    ],
)
def test_the_environment_contains_the_index_of_the_rank(task, expected):
    found = environment_of(*task)
    names = ("LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
    assert tuple(int(found[f"HOROVOD_{name}"]) for name in names) == expected
    assert (found["HOROVOD_RANK"], found["HOROVOD_LOCAL_RANK"]) == (str(task[0]), str(task[2]))
    assert found["HOROVOD_SIZE"] == "7"
    assert found["HOROVOD_HOSTNAME"] == f"gpu0{task[1] + 1}"


def test_the_environment_contains_server_and_interface():
    found = environment_of(0, 0, 0)
    assert found["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "10.0.0.1"
    assert found["HOROVOD_GLOO_RENDEZVOUS_PORT"] == "5000"
    assert found["HOROVOD_CONTROLLER"] == found["HOROVOD_CPU_OPERATIONS"] == "gloo"
    assert found["HOROVOD_GLOO_IFACE"] == found["NCCL_SOCKET_IFNAME"] == "eth0"
    assert environment_of(0, 0, 0, NCCL_SOCKET_IFNAME="ib0")["NCCL_SOCKET_IFNAME"] == "ib0"


def test_a_step_may_be_smaller_than_its_job():
    step = {"SLURM_STEP_NODELIST": "gpu02", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NTASKS": "2"}
    found = environment_of(1, 0, 1, **step)
    assert (found["HOROVOD_SIZE"], found["HOROVOD_HOSTNAME"]) == ("2", "gpu02")


def test_cores_per_task_set_the_threads_unless_the_user_did():
    # Slurm binds the task to its cores; launch/ranks/threads.py would divide them again.
    assert "OMP_NUM_THREADS" not in environment_of(0, 0, 0)
    assert environment_of(0, 0, 0, SLURM_CPUS_PER_TASK="6")["OMP_NUM_THREADS"] == "6"
    both = environment_of(0, 0, 0, SLURM_CPUS_PER_TASK="6", OMP_NUM_THREADS="2")
    assert both["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("task", [(1, 1, 0), (3, 0, 3), (0, 1, 0)])
def test_nonconsecutive_ranks_of_a_node_are_refused(task):
    with pytest.raises(UsageError, match="the ranks of a node must be consecutive, got rank"):
        environment_of(*task)

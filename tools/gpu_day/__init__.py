# SPDX-License-Identifier: Apache-2.0
"""Measure what only a machine with GPUs can show:  python -m tools.gpu_day

Ten steps, each a process with a time limit, which never stop one another.  Each writes one JSON
line; the last one makes the table of docs/gpu.md of them.  Without a GPU the same code runs with
contexts of the CPU, as far as that means something.
"""

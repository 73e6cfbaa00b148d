# SPDX-License-Identifier: Apache-2.0
"""Measure this project on a machine with GPUs:  python -m tools.gpu_day

One run of all measurements is called a day and has ten steps.  Each step is a process with a time
limit.  A step that fails does not affect the other steps.  Each step writes one JSON line; the last
step makes the table of docs/gpu.md from these lines.  Without a GPU, the day is a rehearsal: it
runs the steps that work on the CPU and skips the other steps.
"""

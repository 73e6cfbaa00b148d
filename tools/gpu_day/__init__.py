# SPDX-License-Identifier: Apache-2.0
"""Measure this project on a machine with GPUs:  python -m tools.gpu_day

The measurements are divided into ten steps.  Each step is a process with a time limit.  A step that
fails does not affect the other steps.  Each step adds one JSON line to a results file; the last
step makes the last table of docs/gpu.md from these lines.  Without a GPU, a run is a rehearsal: the
steps that work on the CPU run, and the other steps are skipped.
"""

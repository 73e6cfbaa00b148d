# SPDX-License-Identifier: Apache-2.0
"""Measurements on a machine with GPUs:  python -m tools.gpu_day

The day has ten steps.  Each step is a process with a time limit, and its failure does not affect
the other steps.  Each step writes one JSON line; the last step turns these lines into the table of
docs/gpu.md.  Without a GPU, the steps that can run on the CPU do so, as a rehearsal.
"""

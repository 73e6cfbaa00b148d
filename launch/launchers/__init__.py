# SPDX-License-Identifier: Apache-2.0
"""Commands that start ranks: on one host, on several hosts, in a Slurm job."""

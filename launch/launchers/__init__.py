# SPDX-License-Identifier: Apache-2.0
"""Commands that start ranks on one host, on several, and in Slurm jobs."""

# SPDX-License-Identifier: Apache-2.0
"""What every rank has: communication, agreement, threads, memory, its link to the launcher."""

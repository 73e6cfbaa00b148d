# SPDX-License-Identifier: Apache-2.0
"""Parts of every rank: communication, agreement, threads, memory and link to the launcher."""

# SPDX-License-Identifier: Apache-2.0
"""Code that runs in every rank: communication, joint exit on errors, output, threads, memory."""

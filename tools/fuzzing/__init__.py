# SPDX-License-Identifier: Apache-2.0
"""Parts of tools/fuzz.py: seeds, mutations, targets and the process that runs the cases."""

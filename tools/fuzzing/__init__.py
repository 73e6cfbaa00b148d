# SPDX-License-Identifier: Apache-2.0
"""Parts of the fuzzer, tools/fuzz.py: seed files, mutations, targets and the worker process."""

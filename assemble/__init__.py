# SPDX-License-Identifier: Apache-2.0
"""Construction of a run; only this folder and run_train.py receive the whole configuration."""

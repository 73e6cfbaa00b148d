# SPDX-License-Identifier: Apache-2.0
"""Build the parts of a training run from its configuration.

Only this folder and run_train.py receive the complete configuration.
"""

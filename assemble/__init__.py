# SPDX-License-Identifier: Apache-2.0
"""Configuration to objects: with run_train.py the only code that sees the whole configuration."""

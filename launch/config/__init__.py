# SPDX-License-Identifier: Apache-2.0
"""Read the configuration of a run: sections, YAML files, command line.

This file imports nothing, because programs that run outside the virtual environment use some
modules of this folder.
"""

# SPDX-License-Identifier: Apache-2.0
"""The configuration: sections, YAML files, command line.

Imports nothing: programs that run without an environment use some of its modules.
"""

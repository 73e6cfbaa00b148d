# SPDX-License-Identifier: Apache-2.0
"""The configuration: sections, YAML files, command line."""

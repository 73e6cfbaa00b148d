# SPDX-License-Identifier: Apache-2.0
"""The configuration: sections, YAML files, command line."""

from launch.config.cli import load_config, requested_text
from launch.config.configuration import Config, ConfigError, differences

__all__ = ["Config", "ConfigError", "differences", "load_config", "requested_text"]

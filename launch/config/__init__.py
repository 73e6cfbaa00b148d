# SPDX-License-Identifier: Apache-2.0
"""The configuration: sections, YAML files, command line."""

from launch.config.cli import information, load_config
from launch.config.configuration import Config, ConfigError, differences

__all__ = ["Config", "ConfigError", "differences", "information", "load_config"]

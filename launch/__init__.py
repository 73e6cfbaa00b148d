# SPDX-License-Identifier: Apache-2.0
"""Configuration, environment set-up, launchers, and communication between ranks."""

# SPDX-License-Identifier: Apache-2.0
"""Configuration, launchers, and communication between ranks."""

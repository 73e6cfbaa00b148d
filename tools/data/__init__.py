# SPDX-License-Identifier: Apache-2.0
"""Photographs to record sets and verification sets."""

# SPDX-License-Identifier: Apache-2.0
"""Decode the JPEG bytes of records to MXNet arrays on the device."""

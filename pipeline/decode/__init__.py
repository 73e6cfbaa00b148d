# SPDX-License-Identifier: Apache-2.0
"""Decoding of the JPEG bytes of records to MXNet arrays on the device."""

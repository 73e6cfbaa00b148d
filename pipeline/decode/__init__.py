# SPDX-License-Identifier: Apache-2.0
"""JPEG bytes to arrays on the device."""

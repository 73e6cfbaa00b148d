# SPDX-License-Identifier: Apache-2.0
"""Align photographs of faces: find five points, fit a similarity to them, warp the image."""

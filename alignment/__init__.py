# SPDX-License-Identifier: Apache-2.0
"""Photographs to aligned faces: landmarks from a file or a detector, similarity, warp."""

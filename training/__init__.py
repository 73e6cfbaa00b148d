# SPDX-License-Identifier: Apache-2.0
"""From a batch to weights, and from weights to checkpoints."""

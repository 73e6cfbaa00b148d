# SPDX-License-Identifier: Apache-2.0
"""Training steps, the training loop, and checkpoints."""

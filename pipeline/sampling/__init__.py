# SPDX-License-Identifier: Apache-2.0
"""Which images a rank reads, in which order, and how they are augmented; knows no mxnet."""

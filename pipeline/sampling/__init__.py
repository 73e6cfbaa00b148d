# SPDX-License-Identifier: Apache-2.0
"""Order of the images of each rank and their random augmentation; does not import MXNet."""

# SPDX-License-Identifier: Apache-2.0
"""Choose the image order of each rank and the random augmentation; MXNet is not needed."""

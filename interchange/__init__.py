# SPDX-License-Identifier: Apache-2.0
"""Models in and out: networks of other projects and formats, and ours for other runtimes."""

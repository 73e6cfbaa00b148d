# SPDX-License-Identifier: Apache-2.0
"""Public protocols: the layout of their folders and lists, and the rates that they report."""

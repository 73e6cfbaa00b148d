# SPDX-License-Identifier: Apache-2.0
"""Commands that turn photographs into record sets and verification sets, and check them."""

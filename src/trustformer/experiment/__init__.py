# SPDX-License-Identifier: Apache-2.0
"""A run from config to record."""

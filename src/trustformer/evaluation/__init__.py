# SPDX-License-Identifier: Apache-2.0
"""Scores of decoded text, and likelihood."""

# SPDX-License-Identifier: Apache-2.0
"""Transformers by name or folder, and their weights as arrays."""

# SPDX-License-Identifier: Apache-2.0
"""Sealing and signatures: the only files that touch primitives."""

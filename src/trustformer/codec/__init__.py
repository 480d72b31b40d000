# SPDX-License-Identifier: Apache-2.0
"""Weights to message bodies and back: the client half of an exchange."""

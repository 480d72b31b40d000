# SPDX-License-Identifier: Apache-2.0
"""Clients, host and the round. Read `round.py` first."""

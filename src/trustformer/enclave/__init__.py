# SPDX-License-Identifier: Apache-2.0
"""The aggregator: opens sealed updates, combines them, and releases nothing but the combined result.

Everything imported from here is numpy and cryptography; a test asserts it.
"""

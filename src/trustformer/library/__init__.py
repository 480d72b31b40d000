# SPDX-License-Identifier: Apache-2.0
"""The exchange alone, for models and training loops that are not this package's."""

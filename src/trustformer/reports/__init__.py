# SPDX-License-Identifier: Apache-2.0
"""Tables and pages made from run directories."""

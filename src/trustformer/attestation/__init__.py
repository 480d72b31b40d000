# SPDX-License-Identifier: Apache-2.0
"""Remote attestation: evidence, its verification, the client's policy and the records kept of both."""

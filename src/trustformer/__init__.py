# SPDX-License-Identifier: Apache-2.0
"""Federated training of Transformers in which only sealed k-means centroids leave a client."""

# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation: k-means, and the bodies of messages. Plain numpy, the same at clients and in the enclave;
a client may search for nearest centroids elsewhere."""

from trustformer.vq.coding import MAX_ABS, body_size, decode, encode
from trustformer.vq.kmeans import Array, Nearest, assign, cluster_means, kmeans

__all__ = ["MAX_ABS", "Array", "Nearest", "assign", "body_size", "cluster_means", "decode", "encode", "kmeans"]

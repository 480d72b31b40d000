# SPDX-License-Identifier: Apache-2.0
"""Parallel text: corpora, who gets what, tokenizer, batches."""

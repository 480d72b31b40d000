# SPDX-License-Identifier: Apache-2.0
"""Sentences and code of a model card that do not depend on the run."""

from __future__ import annotations

from trustformer.methods import PRIVATE

TRANSLATE = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER")
batch = tokenizer(["A sentence."], return_tensors="pt", padding=True, truncation=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

transformers 4 also has `pipeline("translation", model="FOLDER")`; transformers 5 has no pipeline for translation."""

PIPELINE = """\
```python
from transformers import pipeline

model = pipeline("{pipeline}", model="FOLDER")
print(model({text}))
```"""

PIPELINES = {
    # task: name of the pipeline, what one gives it, and the metrics the hub knows
    "causal-lm": ("text-generation", "A text begins", ("perplexity",)),
    "masked-lm": ("fill-mask", "A text with one {mask} hidden.", ("perplexity",)),
    "classification": ("text-classification", "A text.", ("accuracy", "f1")),
}

SCORED = {
    "causal-lm": "Perplexity per token of this vocabulary, the end token included.",
    "masked-lm": "Perplexity of hidden tokens, 15 % of each text.",
    "classification": "Macro F1: mean over the labels of the test set.",
}

HOW = {
    "federated": "several clients trained together without putting their text in one place",
    "local": "one client trained alone, on its own text",
    "centralized": "all training text was in one place",
}

_DENSE = "the change of every trained weight, as dense 32-bit floats"

EXCHANGES = {
    "fedavg": f"{_DENSE} (federated averaging)",
    "lora_fedavg": f"{_DENSE} of low-rank adapters",
    "ffa_lora": f"{_DENSE} of one half of low-rank adapters, the other fixed",
    **{name: f"{_DENSE}, clipped to one norm" for name in PRIVATE},
    "codebook": "k-means centroids of blocks of the weights' change, with the code of every block: a lossy copy of "
    "it; one-dimensional parameters likewise, in smaller blocks",
    "partition": "mean changes of groups of rows, the groups known to all, and one-dimensional parameters, "
    "as 16-bit floats",
    "paper": "k-means centroids of the rows of every weight matrix; one-dimensional parameters stayed at the clients",
}

# SPDX-License-Identifier: Apache-2.0
"""Gradient matching: a second opinion on what a message tells about one sentence pair.

The embeddings of a dummy sentence are moved until its gradient points where the message does (Zhu et al., NeurIPS
2019, with the cosine distance of Geiping et al., NeurIPS 2020, and the length prior of LAMP, Balunović et al., 2022).
The adversary is given more than it would have: both lengths, and the target sentence. It looks for the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as functional

from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.errors import ConfigError
from trustformer.models.seq2seq import Model, set_weights

Report = Callable[[int, int], None]

_RATE = 0.05
_LENGTH_WEIGHT = 0.1


def invert(
    model: Model, weights: Weights, message: Weights, example: Example, *, steps: int, seed: int, report: Report
) -> list[int]:
    """Return the source tokens, one a position, whose gradient is most like the message.

    Args:
        model: the architecture; a copy is made.
        weights: where the gradient was taken.
        message: a gradient, or minus a drift.
        example: gives the target sentence and the source's length; its source tokens are not read.
        steps: of Adam.
        seed: of the start.
        report: called with steps done and in all.

    Raises:
        ConfigError: the model is no Marian model, or nothing of its encoder's layers is sent.
    """
    if model.config.model_type != "marian":
        raise ConfigError(f"gradient matching reads models of the type marian, and this is {model.config.model_type}")
    set_weights(model, weights)
    model = deepcopy(model).eval()
    model.set_attn_implementation("eager")  # the fused attention has no second derivative
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = [name for name in parameters if name.startswith("model.encoder.layers")]
    if not names:
        raise ConfigError("gradient matching reads the encoder's layers, and none of them is sent: they are frozen")
    wanted = [torch.from_numpy(message[name]) for name in names]
    embedding_VD = model.model.shared.weight.detach() * model.model.encoder.embed_scale
    generator = torch.Generator().manual_seed(seed)
    norm = embedding_VD.norm(dim=1).mean()
    dummy_LD = torch.randn(len(example.source), embedding_VD.shape[1], generator=generator) * embedding_VD.std()
    dummy_LD.requires_grad_(True)
    adam = torch.optim.Adam([dummy_LD], lr=_RATE)
    for step in range(steps):
        loss = _loss(model, dummy_LD[None], example.target)
        found = torch.autograd.grad(loss, [parameters[name] for name in names], create_graph=True)
        distance = _cosine_distance(found, wanted) + _LENGTH_WEIGHT * (dummy_LD.norm(dim=1).mean() / norm - 1) ** 2
        adam.zero_grad()
        dummy_LD.grad = torch.autograd.grad(distance, dummy_LD)[0]
        adam.step()
        report(step + 1, steps)
    nearest = functional.normalize(dummy_LD.detach()) @ functional.normalize(embedding_VD).T
    return [int(token) for token in nearest.argmax(1)]


def _loss(model: Model, source_BLD: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    labels = torch.tensor([list(target)])
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    logits = model(
        inputs_embeds=source_BLD, decoder_input_ids=torch.cat([start, labels[:, :-1]], 1), use_cache=False
    ).logits
    return functional.cross_entropy(logits[0], labels[0])


def _cosine_distance(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over tensors, so that none drowns the others."""
    pairs = zip(found, wanted, strict=True)
    return 1 - torch.stack([functional.cosine_similarity(f.flatten(), w.flatten(), dim=0) for f, w in pairs]).mean()

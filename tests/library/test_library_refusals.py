# SPDX-License-Identifier: Apache-2.0
"""What a `Federation` refuses, it names: the client, the tensor or the setting, before anything is sent."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trustformer.errors import ConfigError, MessageError, ProtocolError, TrustformerError
from trustformer.library import ExchangeCallback, Federation, MethodConfig
from trustformer.models.seq2seq import get_weights

DENSE = MethodConfig(name="fedavg")
COUNTS = [1, 2, 3]


def modules(count: int = 3, size: int = 8, *, bias: bool = True) -> list[nn.Linear]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return [nn.Linear(size, 4, bias=bias) for _ in range(count)]


def nudge(them: list[Any]) -> None:
    with torch.no_grad():
        for index, module in enumerate(them):
            for parameter in module.parameters():
                parameter += 0.01 * (index + 1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(these: list[Any], those: list[Any]) -> bool:
    pairs = [(get_weights(one), get_weights(other)) for one, other in zip(these, those, strict=True)]
    return all(np.array_equal(own[name], values) for own, other in pairs for name, values in other.items())


def holder(value: torch.Tensor, name: str = "own") -> nn.Module:
    module = nn.Module()
    module.register_parameter(name, nn.Parameter(value))
    return module


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": 4}, "rounds is 3 there, 4 here"),
        ({"method": MethodConfig(name="fedavg", block=3)}, "method.block is 8 there, 3 here"),
        ({"method": MethodConfig()}, "method.name is 'fedavg' there, 'centroid' here; method.carry is not set there"),
        ({"seed": 3}, "seed is 1 there, 3 here"),
        ({"max_share": 0.9}, "max_share is 0.6 there, 0.9 here"),
        ({"process": True}, "process is False there, True here"),
        ({"examples": [1, 2, 4]}, "examples.2 is 3 there, 4 here"),
        (
            {"modules": modules(2), "examples": [1, 2]},
            "modules is 3 there, 2 here; examples.2 is 3 there, not set here",
        ),
        ({"modules": modules(size=9)}, "tensor.weight is [4, 8] there, [4, 9] here"),
        ({"modules": modules(bias=False)}, "tensor.bias is [4] there, not set here"),
    ],
)
def test_a_folder_says_in_what_its_federation_differs(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    made = {"examples": COUNTS, "rounds": 3, "method": DENSE}
    with Federation(modules=modules(), folder=tmp_path, **made):
        pass
    before = files(tmp_path)
    with pytest.raises(ConfigError) as refused:
        Federation(folder=tmp_path, **{"modules": modules(), **made, **change})
    assert f"{tmp_path} holds another federation: {said}" in str(refused.value)
    assert files(tmp_path) == before
    with Federation(modules=modules(), folder=tmp_path, **made):
        pass


def test_a_folder_that_did_not_keep_its_settings_goes_on_and_refuses_others(tmp_path: Path) -> None:
    Federation(modules(), COUNTS, tmp_path, rounds=3).close()
    (tmp_path / "federation.json").unlink()
    Federation(modules(), COUNTS, tmp_path, rounds=3).close()
    with pytest.raises(ConfigError, match="holds another federation: of another version"):
        Federation(modules(), COUNTS, tmp_path, rounds=4)
    (tmp_path / "federation.json").write_text("{")
    with pytest.raises(ConfigError, match="holds another federation: of another version"):
        Federation(modules(), COUNTS, tmp_path, rounds=4)


def test_counts_are_told_by_their_values(tmp_path: Path) -> None:
    Federation(modules(), np.array(COUNTS), tmp_path, rounds=1).close()  # type: ignore[arg-type]
    Federation(modules(), COUNTS, tmp_path, rounds=1).close()


@pytest.mark.parametrize("count", [0, -1, 1.5, "many", 2**64, None])
def test_a_count_that_is_none_names_its_client(tmp_path: Path, count: Any) -> None:
    with pytest.raises(ConfigError, match=f"client 1 has {count} examples"):
        Federation(modules(), [1, count, 1], tmp_path / "a", rounds=1)
    assert not (tmp_path / "a").exists()


def test_counts_cost_no_memory(tmp_path: Path) -> None:
    with Federation(modules(), [2**62] * 3, tmp_path, rounds=1) as federation:
        federation.exchange()


def shallow() -> list[nn.Module]:
    module = nn.Linear(2, 2)
    return [module, copy.copy(module)]


def frozen_in_one() -> list[nn.Linear]:
    them = modules(2)
    them[1].bias.requires_grad_(False)
    return them


@pytest.mark.parametrize(
    ("them", "said"),
    [
        ([], "0 modules and the counts"),
        ([nn.Linear(2, 2), "model"], "client 1 is no torch.nn.Module: 'model'"),
        (shallow(), "clients 0 and 1 share the tensor 'weight'"),
        (frozen_in_one(), "client 1 is of another model than client 0: the tensor 'bias' is trained in one"),
        (
            [nn.Linear(2, 2), nn.Linear(2, 3)],
            r"client 1 is of another model than client 0: the tensor 'weight' has the shape \(3, 2\), not \(2, 2\)",
        ),
        ([nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)], "client 1: the module has nothing to train"),
        ([holder(torch.ones(2)), holder(torch.tensor(1.0))], "client 1: the tensor 'own' has no dimension"),
        ([holder(torch.zeros(0, 3)), holder(torch.zeros(0, 3))], "client 0: the tensor 'own' has no entry"),
        ([holder(torch.zeros(2, dtype=torch.complex64))], r"client 0: the tensor 'own' is of torch\.complex64"),
        ([holder(torch.ones(2), "own[0]")], r"client 0: the tensor 'own\[0\]' has a bracket"),
        ([nn.LazyLinear(2)], "client 0: the tensor 'weight' has no shape yet"),
    ],
)
def test_modules_that_cannot_be_exchanged_name_client_and_tensor(tmp_path: Path, them: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Federation(them, [1] * len(them), tmp_path / "a", rounds=1)
    assert refused.value.hint
    assert not (tmp_path / "a").exists()


def test_clients_may_share_what_is_frozen(tmp_path: Path) -> None:
    base = nn.Linear(3, 3).requires_grad_(False)
    them = [nn.Sequential(base, nn.Linear(3, 2)) for _ in range(2)]
    with Federation(them, [1, 1], tmp_path, rounds=1) as federation:
        assert list(federation.common) == ["1.weight", "1.bias"]
        federation.exchange()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_other_precision_take_the_mean_as_they_can_hold_it(tmp_path: Path, kind: torch.dtype) -> None:
    them = [module.to(kind) for module in modules(2)]
    rest = {name: np.zeros_like(values) for name, values in get_weights(them[0]).items()}  # what they did not hold
    with Federation(them, [1, 1], tmp_path, rounds=2, method=DENSE) as federation:
        for _ in range(2):
            nudge(them)
            both = [get_weights(module) for module in them]
            federation.exchange()
            for name, values in get_weights(them[0]).items():
                mean = (both[0][name] + both[1][name]) / 2 + rest[name]
                rest[name] = mean - values
                np.testing.assert_allclose(values, mean, rtol=torch.finfo(kind).eps, atol=1e-6)
    assert all(parameter.dtype == kind for parameter in them[0].parameters())


def stepped(folder: Path, kind: torch.dtype, step: float, *, again: bool = False) -> tuple[list[float], float]:
    """Let the first of three clients step before each of 16 exchanges; return how far modules and common model moved.

    With `again` the federation is closed after the eighth and made again, of other modules.
    """
    moved: list[float] = []
    for exchanges in (8, 8) if again else (16,):
        them = [nn.Linear(4, 4, bias=False).to(kind) for _ in range(3)]
        if not moved:
            nn.init.ones_(them[0].weight)
        with Federation(them, [1, 1, 1], folder, rounds=16, method=DENSE) as federation:
            for _ in range(exchanges):
                with torch.no_grad():
                    them[0].weight += step
                federation.exchange()
            moved = [float(module.weight[1, 2].detach()) - 1 for module in them]
            common = float(federation.common["weight"][1, 2]) - 1
    return moved, common


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_modules_in_half_precision_do_not_take_back_what_they_cannot_hold(
    tmp_path: Path, kind: torch.dtype, again: bool
) -> None:
    step = torch.finfo(kind).eps  # the least that a weight of 1 can move by: a third of it is rounded away
    moved, common = stepped(tmp_path / "half", kind, step, again=again)
    whole, _ = stepped(tmp_path / "whole", torch.float32, step)
    np.testing.assert_allclose(moved, whole, rtol=0, atol=step)
    np.testing.assert_allclose(common, 16 / 3 * step, rtol=0, atol=1e-5)


def too_far(module: nn.Linear) -> None:
    module.weight[1, 1] += 40


def not_finite(module: nn.Linear) -> None:
    module.bias[2] = float("nan")


def infinite(module: nn.Linear) -> None:
    module.weight[0, 3] = float("-inf")


def over_the_norm(module: nn.Linear) -> None:
    module.weight += 20


def frozen(module: nn.Linear) -> None:
    module.bias.requires_grad_(False)


def grown(module: nn.Linear) -> None:
    module.weight = nn.Parameter(torch.zeros(4, 801))


@pytest.mark.parametrize("method", [DENSE, MethodConfig()])
@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (not_finite, MessageError, "client 1: the tensor 'bias' holds NaN or infinity"),
        (infinite, MessageError, "client 1: the tensor 'weight' holds NaN or infinity"),
        (too_far, MessageError, "client 1: the tensor 'weight' is 40 off the common model, over 32"),
        (over_the_norm, MessageError, r"client 1: its module is a norm of 11\d\d\.\d+ off the common model, over 1000"),
        (frozen, ConfigError, "client 1: its module is no longer the one it began with: the tensor 'bias'"),
        (grown, ConfigError, r"client 1: its module is no longer .* 'weight' has the shape \(4, 801\), not \(4, 800\)"),
    ],
)
def test_weights_that_cannot_travel_name_client_and_tensor_and_change_nothing(
    tmp_path: Path, method: MethodConfig, spoil: Any, kind: type[TrustformerError], said: str
) -> None:
    them, folder = modules(size=800), tmp_path / "own"
    twins = copy.deepcopy(them)
    with Federation(twins, COUNTS, tmp_path / "undisturbed", rounds=2, method=method) as federation:
        nudge(twins)
        federation.exchange()
    with Federation(them, COUNTS, folder, rounds=2, method=method) as federation:
        nudge(them)
        good, weight, before, sent = copy.deepcopy(them), them[1].weight, files(folder), federation.bytes()
        with torch.no_grad():
            spoil(them[1])
        with pytest.raises(kind, match=said) as refused:
            federation.exchange()
        assert refused.value.hint
        assert (files(folder), federation.bytes(), federation.rounds) == (before, sent, 0)
        assert same(them[::2], good[::2])
        them[1].weight = weight
        them[1].requires_grad_(True).load_state_dict(good[1].state_dict())
        federation.exchange()
        assert same(them, twins)


def test_an_update_that_the_enclave_refuses_is_said(tmp_path: Path) -> None:
    them = modules(3, size=1600)
    method = MethodConfig(variant="paper", ratio=0.5)
    with Federation(them, COUNTS, tmp_path, rounds=2, method=method) as federation:
        with torch.no_grad():
            them[2].weight += 30
        with pytest.raises(
            ProtocolError, match="the others have exchanged, but the enclave refused what client 2 sent"
        ):
            federation.exchange()
        assert federation.rounds == 1


@pytest.mark.parametrize("process", [False, True])
def test_a_federation_is_closed_at_the_end_of_its_block(tmp_path: Path, process: bool) -> None:
    federation = Federation(modules(), COUNTS, tmp_path, rounds=2, method=DENSE, process=process)
    federation.exchange()
    with pytest.raises(ZeroDivisionError), federation:
        raise ZeroDivisionError
    assert federation.rounds == 1
    for refused in (federation.exchange, federation.meet):
        with pytest.raises(ProtocolError, match="the federation is closed"):
            refused()
    with Federation(modules(), COUNTS, tmp_path, rounds=2, method=DENSE, process=process) as federation:
        assert federation.rounds == 1


def test_epochs_between_exchanges_are_counted_from_one(tmp_path: Path) -> None:
    with Federation(modules(), COUNTS, tmp_path, rounds=1) as federation, pytest.raises(ConfigError, match="every"):
        ExchangeCallback(federation, every=0)

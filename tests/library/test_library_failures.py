# SPDX-License-Identifier: Apache-2.0
"""A `Federation` whose exchange fails or is cut off: nothing is lost, sent twice or combined twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from trustformer.errors import ConfigError, ProtocolError, TrustformerError
from trustformer.library import Federation, MethodConfig
from trustformer.models.seq2seq import get_weights

DENSE = MethodConfig(name="fedavg")
CODED = MethodConfig(clusters=16)
COUNTS = [100, 200, 300]


class Own(nn.Linear):
    """Lets its owner be interrupted as it is read for the `interrupted`-th time."""

    interrupted = 0

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        self.interrupted -= 1
        if self.interrupted == 0:
            raise KeyboardInterrupt
        return super().named_parameters(*args, **kwargs)


def modules(seed: int = 0) -> list[Own]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [Own(24, 16) for _ in COUNTS]


def learn(them: list[Own], step: int) -> list[dict[str, np.ndarray]]:
    """Move every module in its own way; return where they are."""
    for index, module in enumerate(them):
        generator = torch.Generator().manual_seed(100 * step + index)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return [get_weights(module) for module in them]


def mean(weights: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    total = sum(COUNTS)
    return {name: sum(n / total * own[name] for n, own in zip(COUNTS, weights, strict=True)) for name in weights[0]}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(values, b[name]) for name, values in a.items())


def close_to(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(values, b[name], rtol=0, atol=1e-6) for name, values in a.items())


def cut_off_after_closing(federation: Federation, folder: Path) -> None:
    """An exchange that the enclave has combined, and whose answer the disk does not take."""
    blocked = folder / "host" / "round-00001.new"
    blocked.mkdir()
    with pytest.raises(TrustformerError, match="round-00001"):
        federation.exchange()
    blocked.rmdir()
    assert federation.rounds == 1


@pytest.mark.parametrize("method", [DENSE, CODED])
def test_a_federation_made_again_hands_out_what_the_enclave_had_combined(tmp_path: Path, method: MethodConfig) -> None:
    whole, torn = modules(), modules()
    undisturbed = Federation(whole, COUNTS, tmp_path / "whole", rounds=2, method=method)
    learn(whole, 1)
    undisturbed.exchange()
    federation = Federation(torn, COUNTS, tmp_path / "torn", rounds=2, method=method)
    trained = learn(torn, 1)
    cut_off_after_closing(federation, tmp_path / "torn")
    assert all(same(get_weights(module), own) for module, own in zip(torn, trained, strict=True))
    federation.close()
    torn = modules(5)
    federation = Federation(torn, COUNTS, tmp_path / "torn", rounds=2, method=method)
    for step in (2, 3):
        assert all(same(get_weights(a), get_weights(b)) for a, b in zip(whole, torn, strict=True))
        assert same(undisturbed.common, federation.common)
        if step == 2:
            for them, one in ((whole, undisturbed), (torn, federation)):
                learn(them, step)
                one.exchange()


def test_an_exchange_cut_off_is_adopted_before_the_next_and_training_since_then_is_kept(tmp_path: Path) -> None:
    own = modules()
    federation = Federation(own, COUNTS, tmp_path, rounds=2, method=DENSE)
    first = learn(own, 1)
    cut_off_after_closing(federation, tmp_path)
    second = learn(own, 2)
    federation.exchange()
    assert federation.rounds == 2
    combined = mean(first)
    shifted = [
        {name: late[name] + combined[name] - early[name] for name in late}
        for early, late in zip(first, second, strict=True)
    ]
    assert close_to(federation.common, mean(shifted))
    assert all(close_to(get_weights(module), federation.common) for module in own)


@pytest.mark.parametrize("method", [DENSE, CODED])
def test_what_is_trained_while_an_update_waits_counts_in_the_next_exchange(
    tmp_path: Path, method: MethodConfig
) -> None:
    whole, torn = modules(), modules()
    undisturbed = Federation(whole, COUNTS, tmp_path / "whole", rounds=2, method=method)
    learn(whole, 1)
    undisturbed.exchange()
    federation = Federation(torn, COUNTS, tmp_path / "torn", rounds=2, method=method)
    learn(torn, 1)
    blocked = tmp_path / "torn" / "clients" / "1" / "state.new"
    blocked.mkdir()
    with pytest.raises(TrustformerError, match="cannot be written"):
        federation.exchange()
    blocked.rmdir()
    with torch.no_grad():
        torn[0].bias += 1.0  # trained on, while the first's update waited
    federation.exchange()
    assert same(undisturbed.common, federation.common)
    with torch.no_grad():
        whole[0].bias += 1.0
    assert close_to(get_weights(torn[0]), get_weights(whole[0]))
    for one in (undisturbed, federation):
        one.exchange()
    assert close_to(federation.common, undisturbed.common)


def test_an_update_that_could_not_be_stored_is_not_sent(tmp_path: Path) -> None:
    own = modules()
    federation = Federation(own, COUNTS, tmp_path, rounds=1, method=CODED)
    blocked = tmp_path / "clients" / "1" / "state.new"
    blocked.mkdir()
    trained = learn(own, 1)
    with pytest.raises(TrustformerError, match="cannot be written"):
        federation.exchange()
    assert federation._parties.clients[1].state.pending is None
    assert all(same(get_weights(module), there) for module, there in zip(own, trained, strict=True))
    blocked.rmdir()
    federation.exchange()
    federation.close()
    again = modules(5)
    Federation(again, COUNTS, tmp_path, rounds=1, method=CODED)
    assert all(same(get_weights(a), get_weights(b)) for a, b in zip(own, again, strict=True))


def test_two_federations_do_not_share_a_folder(tmp_path: Path) -> None:
    federation = Federation(modules(), COUNTS, tmp_path, rounds=1)
    with pytest.raises(ConfigError, match="another Federation is at work here"):
        Federation(modules(), COUNTS, tmp_path, rounds=1)
    federation.close()
    federation.close()
    other = Federation(modules(), COUNTS, tmp_path, rounds=1)
    del other
    Federation(modules(), COUNTS, tmp_path, rounds=1)


def test_what_is_closed_exchanges_no_more_and_a_forked_process_keeps_no_folder(tmp_path: Path) -> None:
    federation = Federation(modules(), COUNTS, tmp_path, rounds=1)
    lock = next(file for file in Path("/proc/self/fd").iterdir() if file.exists() and file.resolve().name == "lock")
    held = os.dup(int(lock.name))  # as a worker of a data loader, forked meanwhile, has it open
    try:
        federation.close()
        with pytest.raises(ProtocolError, match="closed"):
            federation.exchange()
        assert Federation(modules(), COUNTS, tmp_path, rounds=1).rounds == 0
    finally:
        os.close(held)


def test_a_federation_that_was_refused_leaves_no_first_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exchanges nothing"):
        Federation(modules(1), COUNTS, tmp_path, rounds=1, method=MethodConfig(name="local"))
    own = modules(2)
    weights = get_weights(own[0])
    Federation(own, COUNTS, tmp_path, rounds=1)
    assert same(get_weights(own[1]), weights)


def test_a_folder_without_an_exchange_goes_on_with_its_first_model(tmp_path: Path) -> None:
    first, other = modules(1), modules(2)
    Federation(first, COUNTS, tmp_path, rounds=1).close()
    federation = Federation(other, COUNTS, tmp_path, rounds=1)
    assert all(same(get_weights(module), get_weights(first[0])) for module in other)
    federation.exchange()
    federation.close()
    (tmp_path / "start.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"start\.safetensors is damaged"):
        Federation(modules(), COUNTS, tmp_path, rounds=1)
    save_file({"weight": np.zeros((16, 24), np.float32)}, tmp_path / "start.safetensors")
    with pytest.raises(ConfigError, match=r"start\.safetensors is of another federation"):
        Federation(modules(), COUNTS, tmp_path, rounds=1)


@pytest.mark.parametrize("process", [False, True])
def test_after_an_interruption_the_folder_is_taken_up_again(tmp_path: Path, process: bool) -> None:
    own = modules()
    federation = Federation(own, COUNTS, tmp_path, rounds=1, method=DENSE, process=process)
    trained = learn(own, 1)
    own[1].interrupted = 2  # checked first, then trained
    with pytest.raises(KeyboardInterrupt):
        federation.exchange()
    with pytest.raises(ProtocolError, match="interrupted") as refused:
        federation.exchange()
    assert "close()" in refused.value.hint
    federation.close()
    again = modules(5)
    federation = Federation(again, COUNTS, tmp_path, rounds=1, method=DENSE, process=process)
    try:
        assert same(get_weights(again[0]), trained[0])  # it had been stored
        for module, weights in zip(again[1:], trained[1:], strict=True):
            module.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
        federation.exchange()
        assert close_to(federation.common, mean(trained))
    finally:
        federation.close()


def test_an_enclave_that_dies_between_exchanges_is_started_again(tmp_path: Path) -> None:
    own = modules()
    federation = Federation(own, COUNTS, tmp_path, rounds=2, method=DENSE, process=True)
    try:
        learn(own, 1)
        federation.exchange()
        assert federation._parties.process is not None
        os.kill(federation._parties.process.pid, signal.SIGKILL)
        assert federation.rounds == 1
        trained = learn(own, 2)
        os.kill(federation._parties.process.pid, signal.SIGKILL)
        federation.exchange()
        assert close_to(federation.common, mean(trained))
    finally:
        federation.close()


def test_modules_that_are_refused_leave_no_enclave_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of another model"):
        Federation([nn.Linear(2, 2), nn.Linear(2, 3)], [1, 1], tmp_path, rounds=1, process=True)
    Federation([nn.Linear(2, 2), nn.Linear(2, 2)], [1, 1], tmp_path, rounds=1, process=True).close()


def test_clients_that_meet_hear_why_it_failed_and_meet_again(tmp_path: Path) -> None:
    own = modules()
    trained, heard = [], []
    with Federation(own, COUNTS, tmp_path, rounds=1, method=DENSE) as federation:
        trained += learn(own, 1)
        with torch.no_grad():
            own[2].bias[3] = float("nan")

        def go(index: int) -> None:
            try:
                federation.meet()
            except TrustformerError as error:
                heard.append(str(error))
            if index == 2:
                with torch.no_grad():
                    own[2].bias[3] = float(trained[2]["bias"][3])
            federation.meet()

        threads = [Thread(target=go, args=[index]) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert heard == ["the exchange failed: client 2: the tensor 'bias' holds NaN or infinity"] * 3
        assert federation.rounds == 1
        assert close_to(federation.common, mean(trained))


def test_nobody_waits_for_a_federation_that_is_closed(tmp_path: Path) -> None:
    heard = []
    with Federation(modules(), COUNTS, tmp_path, rounds=1) as federation:

        def wait() -> None:
            try:
                federation.meet()
            except TrustformerError as error:
                heard.append(str(error))

        thread = Thread(target=wait)
        thread.start()
    thread.join(60)
    assert heard == ["the federation is closed"]

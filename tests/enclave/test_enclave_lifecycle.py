# SPDX-License-Identifier: Apache-2.0
"""What docs/operations.md says to do with a run: new keys, a new measurement, another roster."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from process_kit import Party, honest_round

import trustformer.experiment.parties as parties
from trustformer.attestation.errors import Measurement
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Manifest, split_signed
from trustformer.errors import EnclaveLostError
from trustformer.experiment.audit import audit
from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run
from trustformer.federation.host import split_kept

Run = Callable[..., dict[str, Any]]


class Stopper(PlainReporter):
    """Interrupts a run, as ctrl-C does, when so many rounds are done."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def overall(self, done: int, total: int) -> None:
        if done == self._after:
            raise KeyboardInterrupt


def digests(out: Path) -> tuple[str, str]:
    result = json.loads((out / "result.json").read_text("utf-8"))
    return result["weights_digest"], result["common_digest"]


def manifests(out: Path) -> list[Manifest]:
    kept = [path.read_bytes() for path in sorted((out / "host").glob("*.sealed"))]
    return [Manifest.from_bytes(split_signed(split_kept(data, 2**24)[0], "manifest")[0]) for data in kept]


def test_a_restart_rotates_every_key(tmp_path: Path) -> None:
    party = Party(tmp_path)
    remote = party.remote()
    try:
        host = party.host(remote)
        players = party.players(host)
        honest_round(host, players)
        before = {client: player.channel.welcome for client, player in players.items()}
        os.kill(remote.pid, signal.SIGTERM)
        with pytest.raises(EnclaveLostError):
            players["c0"].hello()
        honest_round(host, players)  # every client verifies the new keys
        for client, player in players.items():
            after = player.channel.welcome
            assert after.boot_id != before[client].boot_id
            assert after.recipient != before[client].recipient
            assert after.signer != before[client].signer
    finally:
        remote.stop()


@pytest.mark.parametrize("keep_state", [True, False])
def test_an_upgrade_in_mid_run_takes_the_clients_policies(
    mini_model: None, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_state: bool
) -> None:
    config, out = load_config(None, [*settings, "rounds=3"]), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, out, Stopper(1))
    upgraded = bytes(range(32))
    monkeypatch.setattr(parties, "simulated_measurement", lambda: upgraded)
    with pytest.raises(Measurement):
        run(config, out, PlainReporter(), resume=True)
    policy = out / "policy.toml"
    policy.write_text(policy.read_text().replace('mrenclave = ["', f'mrenclave = ["{upgraded.hex()}", "'))
    if not keep_state:  # on hardware another measurement cannot open it
        (out / "enclave" / "state.sealed").unlink()
    run(config, out, PlainReporter(), resume=True)
    run(config, whole := tmp_path / "whole", PlainReporter())
    assert (digests(out) == digests(whole)) == keep_state
    assert [manifest.residual_reset for manifest in manifests(out)] == [False, not keep_state, False, False]
    report = audit(out)
    assert not report.failed
    assert ("the enclave had lost its state before round 2" in " ".join(report.notes)) != keep_state


def test_another_roster_goes_on_from_the_old_common_model(tiny_run: Run, tmp_path: Path) -> None:
    old = tiny_run(tmp_path / "old")
    start = f"model.preset={tmp_path / 'old' / 'model'}"
    tiny_run(tmp_path / "new", start, "clients.count=4", "rounds=1")
    terms = RunConfig.from_bytes((tmp_path / "new" / "terms.bin").read_bytes())
    assert terms.common_digest.hex() == old["common_digest"]
    assert len(terms.roster) == 4
    former = RunConfig.from_bytes((tmp_path / "old" / "terms.bin").read_bytes())
    assert terms.run_id != former.run_id
    assert not {key for _, key in terms.roster} & {key for _, key in former.roster}

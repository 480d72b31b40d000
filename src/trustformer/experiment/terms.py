# SPDX-License-Identifier: Apache-2.0
"""The terms of a run: what every client has agreed to before the first round."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from trustformer.aggregation import STEPS
from trustformer.attestation.evidence import Kind
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError
from trustformer.experiment.config import Config
from trustformer.experiment.guarantee import Guarantee
from trustformer.experiment.record import RunDirectory
from trustformer.methods import Codec, Method
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import KEY_SIZE


class Shared(Protocol):
    """What parties have in common: `Prepared`, or what stands for it where training is not this package's."""

    @property
    def clients(self) -> Mapping[str, Sequence[Example]]:
        """Training examples by client."""
        ...

    @property
    def method(self) -> Method:
        """What is exchanged."""
        ...

    @property
    def start(self) -> Weights:
        """G_0."""
        ...

    @property
    def common(self) -> Weights:
        """G_0 again; empty where the method has no common model."""
        ...

    @property
    def guarantee(self) -> Guarantee | None:
        """Differential privacy; None where there is none."""
        ...

    @property
    def digest(self) -> bytes:
        """Of all that clients agree on beside the terms (32 bytes)."""
        ...


def agreed_terms(
    config: Config,
    prepared: Shared,
    codec: Codec,
    identities: dict[str, Identity],
    directory: RunDirectory,
    rounds: int,
) -> RunConfig:
    """The terms every client agreed to: written once, then the same for the whole run."""
    path = directory.path / "terms.bin"
    if path.exists():
        terms = RunConfig.from_bytes(path.read_bytes())
        check_experiment(directory, terms.experiment, prepared.digest)
        if (codec.upload, codec.answer) != (terms.upload, terms.answer):
            raise ConfigError(
                f"{directory.path}: its terms describe other messages than this version makes",
                "go on with the version that it began with, or start a new run",
            )
        return terms
    roster = {client: identity.public for client, identity in identities.items()}
    common = codec.at(config.seed, 1).digest(prepared.common)
    terms = make_terms(config, prepared.digest, common, codec, roster, rounds, prepared.guarantee)
    directory.write("terms.bin", terms.to_bytes())
    return terms


def check_terms(config: Config, prepared: Shared, codec: Codec, rounds: int) -> None:
    """Raise as `make_terms` does, before clients have keys: numbers stand for them."""
    roster = {client: number.to_bytes(KEY_SIZE, "big") for number, client in enumerate(prepared.clients)}
    make_terms(config, prepared.digest, prepared.digest, codec, roster, rounds, prepared.guarantee)


def check_experiment(directory: RunDirectory, began: bytes, digest: bytes) -> None:
    """Raise `ConfigError` unless a run's digest is the one it began with (32 bytes each)."""
    if began != digest:
        raise ConfigError(
            f"{directory.path}: data, tokenizer or model are not those this run began with",
            "restore the files, or start a new run",
        )


def keep_promise(directory: RunDirectory, guarantee: Guarantee | None, hint: str) -> None:
    """Keep what a private run promises in `privacy.json`; raise `ConfigError` where it would go on with other noise.

    An epsilon is computed for one noise from the first release to the last. `hint` says what may have changed it.
    """
    path = directory.path / "privacy.json"
    if guarantee is None:
        return
    if not path.exists():
        directory.write_json(path.name, guarantee.to_dict())
        return
    try:
        began = float(json.loads(path.read_text("utf-8"))["noise_multiplier"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}", "restore it, or start a new run") from None
    if began != guarantee.noise_multiplier:
        raise ConfigError(
            f"{directory.path}: its noise multiplier was {began:.10g}, and would be {guarantee.noise_multiplier:.10g}",
            f"{hint}, or start a new run",
        )


def check_norm(config: Config, codec: Codec, guarantee: Guarantee | None) -> None:
    """Raise `ConfigError` where the noise that clients add would take honest updates beyond `enclave.max_norm`.

    Of d entries it has a norm of about sigma C sqrt(d); a tenth more leaves room for chance.
    """
    if guarantee is None or config.privacy.mechanism != "client":
        return
    entries = sum(math.prod(spec.shape) for spec in codec.upload.tensors)
    noise = guarantee.noise_multiplier * guarantee.clipping_norm * math.sqrt(entries)
    enough = guarantee.clipping_norm + 1.1 * noise
    if config.enclave.max_norm < enough:
        raise ConfigError(
            f"enclave.max_norm is {config.enclave.max_norm:g}, the norm of a client's noise alone about {noise:,.0f}",
            f"--set enclave.max_norm={math.ceil(enough)}",
        )


def make_terms(
    config: Config,
    experiment: bytes,
    common_digest: bytes,
    codec: Codec,
    roster: Mapping[str, bytes],
    rounds: int,
    guarantee: Guarantee | None = None,
    provider: Kind = SimulatedAttester.kind,
) -> RunConfig:
    """Return new terms of a run.

    Args:
        config: the run's config.
        experiment: digest of what all clients agree on beside the terms (32 bytes).
        common_digest: of the first common model (32 bytes).
        codec: gives the layouts.
        roster: client id to public key.
        rounds: exchanges of the run, closing ones included.
        guarantee: what a private run promises.
        provider: kind of evidence the enclave must show.

    Raises:
        ConfigError, ProtocolError: settings that do not go together; name the setting.
    """
    check_norm(config, codec, guarantee)
    terms = RunConfig(
        run_id=os.urandom(16),
        provider=provider,
        experiment=experiment,
        common_digest=common_digest,
        roster=tuple(sorted(roster.items())),
        min_clients=config.min_clients,
        max_share_ppm=round(config.clients.max_share * 1e6),
        rounds=rounds,
        seed=config.seed,
        upload=codec.upload,
        answer=codec.answer,
        release=config.enclave.release,
        rule=config.enclave.rule,
        trim_ppm=round(config.enclave.trim * 1e6) if config.enclave.rule == "trimmed_mean" else 0,
        max_norm_milli=round(config.enclave.max_norm * 1e3),
    )
    method = config.method
    if method.coded and method.carry < 1:
        trained = rounds - method.closing_exchanges
        terms = replace(terms, trained=trained, carry_ppm=round(method.carry * 1e6))
    if guarantee is not None and config.privacy.mechanism == "enclave":
        norm_milli = math.ceil(config.privacy.clipping_norm * 1e3)
        sensitivity = norm_milli / 1e3 + math.sqrt(codec.upload.entries) * 0.5 / STEPS
        terms = replace(
            terms,
            rule="private_mean",
            expected_milli=round(config.clients.participation * len(roster) * 1e3),
            noise_micro=math.ceil(guarantee.noise_multiplier * sensitivity * 1e6),
            max_norm_milli=norm_milli,
        )
    if terms.release == "acknowledged" and terms.min_clients < terms.quorum:
        raise ConfigError(
            "enclave.release is acknowledged, which takes two thirds of the clients in every round",
            f"--set clients.min_clients={terms.quorum}",
        )
    terms.check()
    return terms

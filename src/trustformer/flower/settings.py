# SPDX-License-Identifier: Apache-2.0
"""`host.toml` and `node.toml`: what each machine of a deployment is told, by its own operator and nobody else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Self

import msgspec
from msgspec import Meta, Struct

from trustformer.errors import ConfigError
from trustformer.experiment.toml import write_toml

_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Address = Annotated[str, Meta(pattern=f"^.+:{_PORT}$")]
Elsewhere = Annotated[str, Meta(pattern=f"^(.+:{_PORT})?$")]
Seconds = Annotated[float, Meta(gt=0, le=1e7)]


_LONGEST = 2**20
"""Bytes of a file that are read."""
ENCLAVE = "127.0.0.1:7911"
"""Where the enclave serves under the manifest of this project."""


class _File(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    folder: ClassVar[str]
    """Whose folder the file is in, for the hint where it is not there."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raises `ConfigError` naming the key."""
        try:
            if path.exists() and not path.is_file():
                raise ConfigError(f"{path} is no file")
            with open(path, "rb") as file:
                data = file.read(_LONGEST + 1)
            if len(data) > _LONGEST:
                raise ConfigError(f"{path} is longer than {_LONGEST:,} bytes")
            return msgspec.convert(tomllib.loads(data.decode()), cls)
        except OSError as error:
            hint = f"give the folder of {cls.folder}; trustformer init-federation makes it"
            raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from None
        except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a wrong key or value, too deep, too long
            raise ConfigError(f"{path}: {error}", "docs/deploy-flower.md lists the keys") from None

    def to_toml(self) -> str:
        """The file as `load` reads it."""
        return write_toml(msgspec.to_builtins(self))


class HostConfig(_File, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the host decides: where it listens and how long it waits. None of it can weaken what clients agreed to.

    Attributes:
        listen: address of the SuperLink.
        deadline: seconds one try at a round may take; then it is closed with those who are there, or tried again.
        attempts: tries at a round before `serve` gives up and says who is missing.
        probe: seconds of silence after which a client is asked whether it has begun anew.
        restarts: how often a dead SuperLink is started again, and how many deaths of the enclave are borne.
        enclave: address of an enclave that is started by somebody else, such as Gramine; empty: `serve` starts one.
        collateral: for quotes that come without: `intel`, the URL of a PCCS, or a file beside this one.
    """

    folder: ClassVar[str] = "the host, such as fed/host"
    listen: Address = "127.0.0.1:9443"
    deadline: Seconds = 3600.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 24
    probe: Seconds = 5.0
    restarts: Annotated[int, Meta(ge=0, le=1000)] = 20
    enclave: Elsewhere = ""
    collateral: Annotated[str, Meta(min_length=1)] = "intel"


class NodeConfig(_File, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client's own operator decides. Relative paths are looked up beside this file.

    Attributes:
        client: its id on the roster.
        superlink: address of the SuperLink.
        bundle: SHA-256 of the app bundle whose runs this client takes part in.
        data: folder of the private text, as `trustformer prepare` makes it.
        state: where weights, optimizer and residual are kept between messages.
        model: where the finished model is written.
        policy: what may read this client's updates.
        patience: seconds without a sign of the SuperLink, or without an answer, after which `join` gives up.
        identity, node_key, ca, terms, config, tokenizer, start: files that `init-federation` wrote.
    """

    folder: ClassVar[str] = "one client, such as fed/client-0"
    client: str
    superlink: Address
    bundle: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    data: str = "data"
    state: str = "state"
    model: str = "model"
    policy: str = "policy.toml"
    patience: Seconds = 3600.0
    identity: str = "identity.key"
    node_key: str = "node.key"
    ca: str = "ca.crt"
    terms: str = "terms.bin"
    config: str = "config.toml"
    tokenizer: str = "tokenizer.model"
    start: str = "start.safetensors"

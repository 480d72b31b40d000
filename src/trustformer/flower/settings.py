# SPDX-License-Identifier: Apache-2.0
"""`host.toml` and `node.toml`: what each machine of a deployment is told, by its own operator and nobody else."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta, Struct

from trustformer.errors import ConfigError
from trustformer.experiment.toml import write_toml

_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ADDRESS = 'HOST:PORT in quotes, the port from 1 to 65535, such as "10.0.0.5:9443"'
_TEXT = r"\A[^\x00-\x1f\x7f]+\Z"
# A description completes "must be ..." and is what a person reads: each key of the files below has one.
Address = Annotated[str, Meta(pattern=rf"\A[^\s/]+:{_PORT}\Z", description=_ADDRESS)]
Elsewhere = Annotated[str, Meta(pattern=rf"\A([^\s/]+:{_PORT})?\Z", description=f'{_ADDRESS}, or ""')]
Seconds = Annotated[float, Meta(gt=0, le=1e7, description="a number of seconds above 0, at most 10,000,000")]
Tries = Annotated[int, Meta(ge=1, le=1000, description="a whole number from 1 to 1000")]
Restarts = Annotated[int, Meta(ge=0, le=1000, description="a whole number from 0 to 1000")]
Source = Annotated[str, Meta(pattern=_TEXT, description='"intel", the URL of a PCCS or the name of a file, in quotes')]
Name = Annotated[str, Meta(pattern=_TEXT, description="this client's id on the roster, in quotes")]
Place = Annotated[str, Meta(pattern=_TEXT, description="the name of a file or folder, in quotes")]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a SHA-256, 64 digits of 0-9 and a-f in quotes")]

_LONGEST = 2**20
"""Bytes of a file that are read."""
_LISTED = "docs/deploy-flower.md lists the keys"
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
            tree = tomllib.loads(data.decode())
        except OSError as error:
            hint = f"give the folder of {cls.folder}; trustformer init-federation makes it"
            raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from None
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "no text in UTF-8, or nested too deeply"
            raise ConfigError(f"{path} is not TOML: {why}", _LISTED) from None
        cls._check(path, tree)
        return msgspec.convert(tree, cls)

    @classmethod
    def _check(cls, path: Path, tree: dict[str, Any]) -> None:
        """Raise `ConfigError` for the first key that is unknown, missing or of no use, in words for its operator."""
        known = {field.name: field for field in msgspec.structs.fields(cls)}
        for name in tree:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ConfigError(f"{path}: unknown key {name!r:.80}", f"did you mean {near[0]}?" if near else _LISTED)
        for name, field in known.items():
            allowed = field.type.__metadata__[0].description
            if name not in tree:
                if field.required:
                    raise ConfigError(f"{path}: {name} is missing; it must be {allowed}", _LISTED)
                continue
            try:
                msgspec.convert(tree[name], field.type)
            except msgspec.ValidationError:
                raise ConfigError(f"{path}: {name} is {tree[name]!r:.80}; it must be {allowed}", _LISTED) from None

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
    attempts: Tries = 24
    probe: Seconds = 5.0
    restarts: Restarts = 20
    enclave: Elsewhere = ""
    collateral: Source = "intel"


def listening(address: str) -> str:
    """Where to listen so that clients reach the host at `address`; raises `ConfigError` if that is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    six = host.startswith("[") and host.endswith("]")
    if not (host and (six or ":" not in host) and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(
            f"--address {address!r} is not HOST:PORT", "for example --address 10.0.0.5:9443, or [2001:db8::5]:9443"
        )
    if host in ("127.0.0.1", "localhost", "[::1]"):
        return address
    return f"[::]:{port}" if six else f"0.0.0.0:{port}"


class NodeConfig(_File, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client's own operator decides. Relative paths are looked up beside this file.

    Attributes:
        client: its id on the roster.
        superlink: address of the SuperLink.
        bundle: SHA-256 of the app bundle whose runs this client takes part in.
        data: folder of the private text, as `trustformer prepare` makes it.
        state: where weights, optimizer and residual are kept between messages.
        model, common: where this client's own finished model is written, and the one that all clients hold.
        policy: what may read this client's updates.
        patience: seconds without a sign of the SuperLink, or without an answer, after which `join` gives up.
        identity, node_key, ca, terms, config, tokenizer, start: files that `init-federation` wrote.
    """

    folder: ClassVar[str] = "one client, such as fed/client-0"
    client: Name
    superlink: Address
    bundle: Digest
    data: Place = "data"
    state: Place = "state"
    model: Place = "model"
    common: Place = "common"
    policy: Place = "policy.toml"
    patience: Seconds = 3600.0
    identity: Place = "identity.key"
    node_key: Place = "node.key"
    ca: Place = "ca.crt"
    terms: Place = "terms.bin"
    config: Place = "config.toml"
    tokenizer: Place = "tokenizer.model"
    start: Place = "start.safetensors"

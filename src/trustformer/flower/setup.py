# SPDX-License-Identifier: Apache-2.0
"""`trustformer init-federation`: everything the machines of a federation need before the first round.

One folder for the host and one for each client. Nothing private crosses from one to another: a client's folder holds
its own keys and data, the host's the public keys.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from trustformer.attestation import dcap
from trustformer.attestation.gramine import GramineAttester
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.data.corpus import Pair
from trustformer.data.folder import check_free, whole_folder, write_folder
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError
from trustformer.experiment.config import Config
from trustformer.experiment.parties import simulated_policy, simulated_root
from trustformer.experiment.prepare import Prepared, divide, prepare
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.terms import make_terms
from trustformer.flower.agreement import CONTINUED, experiment_digest
from trustformer.flower.bundle import bundle_hash, make_bundle
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.placeholder import corpus_languages, joined, note_placeholder
from trustformer.flower.settings import HostConfig, NodeConfig
from trustformer.methods import Codec
from trustformer.models.seq2seq import PRESETS, save_model
from trustformer.secure.identity import Identity

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Commands:
    """What to type, and where.

    Attributes:
        serve: on the host.
        join: client id to the command on its machine.
        about: languages where known, pairs, vocabulary and model, in one line.
    """

    serve: str
    join: dict[str, str]
    about: str


def init_federation(
    folder: Path, config: Config, address: str, host: HostConfig, policy: Path | None = None
) -> Commands:
    """Write the folders of host and clients as a whole: after a failure there is none.

    Args:
        folder: must not exist, or be empty.
        config: the run's config; `clients.count` clients.
        address: where clients reach the host, `HOST:PORT`.
        host: what the host decides.
        policy: file that says which SGX enclave clients accept; without, the enclave's attestation is simulated.

    Raises:
        ConfigError, DataError: a config that cannot be deployed, or data that cannot be read.
    """
    check_free(folder)
    _check(config)
    hardware = None if policy is None else _hardware_policy(policy)
    prepared = prepare(config)
    if prepared.method.codec is None:
        raise ConfigError(f"method {config.method.name} exchanges nothing", "--set method.name=centroid")
    with whole_folder(folder) as temporary:
        return _write(temporary, folder, config, prepared, prepared.method.codec, address, host, hardware)


def _check(config: Config) -> None:
    """Refuse settings that only a run on one machine can keep to."""
    if config.clients.folders:
        raise ConfigError(
            "clients.folders: a federation is made without its clients' text, which would come to each other",
            "give clients.count and public text; each owner puts a folder of trustformer prepare into its node.toml",
        )
    plain = Config()
    for name in ("participation", "late", "duplicate", "cohorts"):
        if getattr(config.clients, name) != getattr(plain.clients, name):
            raise ConfigError(f"clients.{name} plays what happens by itself between machines", "leave it out")
    if config.model.task != "translation" or config.model.lora_rank:
        raise ConfigError("a deployment trains translation without adapters so far", "use trustformer run")
    if config.privacy.client_level:
        raise ConfigError(
            f"privacy.mechanism {config.privacy.mechanism} is of trustformer run alone so far",
            "--set privacy.mechanism=records protects sentence pairs in a deployment too",
        )
    if config.record_messages:
        raise ConfigError("record_messages keeps what one machine sees of all clients", "use trustformer run")


def _hardware_policy(path: Path) -> bytes:
    """The file's bytes, if it accepts an enclave on Intel's hardware and a copy of it does so elsewhere."""
    policy = Policy.load(path)
    if dcap.INTEL_ROOT_SHA256 not in policy.pins or policy.roots:
        raise ConfigError(
            f"{path} does not name enclaves by Intel's root alone",
            "leave root_ca_sha256 and root_ca_files out: the root comes with the collateral",
        )
    return path.read_bytes()


def _write(
    at: Path,
    final: Path,
    config: Config,
    prepared: Prepared,
    codec: Codec,
    address: str,
    host: HostConfig,
    policy: bytes | None,
) -> Commands:
    server = RunDirectory(at / "host")
    identities = {client: Identity.generate() for client in prepared.clients}
    roster = {client: identity.public for client, identity in identities.items()}
    rounds = prepared.method.total(config.rounds)
    folders = [at / _name(client) for client in prepared.clients]
    for folder in folders if config.model.preset not in PRESETS else ():
        RunDirectory(folder).make()
        save_model(prepared.model, folder / CONTINUED)
    agreed = experiment_digest(config, prepared.tokenizer.digest, prepared.start, folders[0])
    common = codec.at(config.seed, 1).digest(prepared.common)
    provider = SimulatedAttester.kind if policy is None else GramineAttester.kind
    terms = make_terms(config, agreed, common, codec, roster, rounds, provider=provider)
    server.make()
    server.write("config.toml", config.to_toml().encode())
    server.write("terms.bin", terms.to_bytes())
    server.write("host.toml", host.to_toml().encode())
    if policy is None:
        simulated_policy(server, simulated_root(server))
    else:
        server.write("policy.toml", policy)
    make_tls(server.path / "tls", list(dict.fromkeys((address.rpartition(":")[0].strip("[]"), *_LOOPBACK))))
    (server.path / "nodes").mkdir()
    pairs, languages = _pairs(config, prepared), corpus_languages(config.data)
    for client, identity in identities.items():
        _write_client(at, server, client, identity, pairs[client], terms, prepared, address)
        note_placeholder(at / _name(client), at / _name(client) / "data", languages)
    commands = Commands(
        shlex.join(["trustformer", "serve", str(final / "host")]),
        {name: shlex.join(["trustformer", "join", str(final / _name(name))]) for name in prepared.clients},
        _about(config, prepared, languages),
    )
    where = host.enclave or "the address that `enclave` in `host/host.toml` gives (none yet)"
    notes = _SIMULATED if policy is None else _HARDWARE.format(where)
    RunDirectory(at).write("README.md", _readme(commands, address, notes, languages).encode())
    return commands


def _write_client(
    at: Path,
    server: RunDirectory,
    client: str,
    identity: Identity,
    pairs: Mapping[str, list[Pair]],
    terms: RunConfig,
    prepared: Prepared,
    address: str,
) -> None:
    node = RunDirectory(at / _name(client))
    node.make()
    settings = NodeConfig(client=client, superlink=address, bundle=bundle_hash(make_bundle()))
    node.write("node.toml", settings.to_toml().encode())
    for name in ("config.toml", "policy.toml"):
        node.write(name, (server.path / name).read_bytes())
    node.write("terms.bin", terms.to_bytes())
    node.write("ca.crt", (server.path / "tls" / "ca.crt").read_bytes())
    node.write("tokenizer.model", prepared.tokenizer.model)
    save_file(prepared.start, node.path / "start.safetensors")
    identity.save(node.path / "identity.key")
    make_node_key(node.path / "node.key", server.path / "nodes" / f"{client}.pub")
    write_folder(node.path / "data", pairs, {})


def _name(client: str) -> str:
    return f"client-{client}"


def _about(config: Config, prepared: Prepared, languages: list[str]) -> str:
    pairs = sum(map(len, prepared.clients.values()))
    parameters = sum(values.size for values in prepared.start.values())
    preset = config.model.preset
    model = f"a new model ({preset})" if preset in PRESETS else f"continues {preset}"
    return (
        f"{joined(languages) or 'languages unknown'}, {pairs:,} placeholder pairs, "
        f"vocabulary {prepared.tokenizer.vocab_size:,}, {parameters:,} parameters, {model}"
    )


def _pairs(config: Config, prepared: Prepared) -> dict[str, dict[str, list[Pair]]]:
    """Each client's part of the corpus, in the order in which `trustformer run` would train on it."""
    corpus = prepared.corpus
    parts = divide(config, corpus, len(prepared.clients))
    return {
        client: {"train": [corpus.train[i] for i in part], "valid": list(corpus.valid), "test": list(corpus.test)}
        for client, part in zip(prepared.clients, parts, strict=True)
    }


_SIMULATED = """\
- `policy.toml` accepts SIMULATED evidence, which proves nothing about hardware. With an SGX host make the federation
  anew with `--policy FILE` (docs/deploy-gramine.md).
"""
_HARDWARE = """\
- The enclave is started on the host before `serve`, with `host/terms.bin` (docs/deploy-gramine.md); `serve` looks for
  it at {}.
- `policy.toml` is the one this federation was made with. Each client reads its own, and should know why it names
  that measurement.
"""


def _readme(commands: Commands, address: str, notes: str, languages: list[str]) -> str:
    source, target = languages or ("LANGUAGE", "LANGUAGE")
    joins = "\n".join(f"    {command}" for command in commands.join.values())
    return f"""\
# A federation of {len(commands.join)} clients

On the host, by the path that its folder has there:

    {commands.serve}

On each client's machine, by the path that its folder has there (or in further terminals of this one):

{joins}

Each command can be stopped and started again at any time; it goes on where it was.
Afterwards `trustformer attest audit HOST CLIENT...` checks the run from files of these folders (docs/deploy-flower.md).

Before you use it between machines:

- `host/` goes to the host, each `client-*/` to its owner, over a channel you trust; then delete them here. The
  folders hold private keys, and whoever keeps a client's `identity.key` can send updates in its name.
- Give each client text of its own:

      trustformer prepare FILE --out DIR --source-language {source} --target-language {target}

  then `data = "DIR"` in its `node.toml`. Languages, `--valid` and `--test` must be the same at all clients.
  What is in `client-*/data` now is a placeholder: that client's part of the corpus this federation was made with.
- Clients connect to {address}. Firewall that port to the clients' addresses: Flower's Control API is on it
  too and asks for no credential, so whoever reaches it can start and stop runs (docs/deploy-flower.md).
{notes}"""

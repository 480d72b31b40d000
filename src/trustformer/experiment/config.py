# SPDX-License-Identifier: Apache-2.0
"""A run's config: TOML with every key known, typed and bounded; errors name the key and what it may be."""

from __future__ import annotations

import math
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from trustformer.errors import ConfigError
from trustformer.evaluation.translation import EvaluationConfig
from trustformer.experiment.checks import check
from trustformer.experiment.explain import explain
from trustformer.experiment.record import leaves
from trustformer.experiment.toml import write_toml
from trustformer.methods import MethodConfig
from trustformer.models.adapters import FACTORS_A
from trustformer.models.seq2seq import ModelConfig
from trustformer.privacy.config import PrivacyConfig
from trustformer.training import TrainConfig

QUICKSTART = Path(__file__).with_name("quickstart.toml")
"""The config of a run that is given none."""


Language = Annotated[str, Meta(pattern="^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$")]

_LATER = {
    "data": ("source_language", "target_language", "name", "config", "side"),
    "clients": ("folders",),
    "model": ("task", "architecture", "freeze", "lora_rank"),
    "train": ("cooldown", "device", "precision"),
    "method": ("partition", "exchanges", "rho", "blur_weight", "lus_share"),
    "evaluation": ("clients",),
}
"""Keys that a config's text leaves out at their defaults, so that records from before they came are still its own."""


class DataConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[data]` section.

    Attributes:
        source: `toy` (built in, synthetic), `tsv` (`source<TAB>target`), `lines` (one text a line), `tmx`, `jsonl`,
            `text` (two aligned files), `folder` (made by `trustformer prepare`), `hf` (Hugging Face data set); files
            also as .gz.
        train, valid, test: files; relative ones are looked up in TRUSTFORMER_DATA, then here. Of `text`: `corpus` for
            `corpus.ru` and `corpus.en`; of `folder`: only train, the folder; of `hf`: names of splits, if unusual.
        train_domains, valid_domains, test_domains: of `tsv` and `lines`: one label a line, beside those files.
        limit: use the first so many training pairs; 0 for all (`toy`: 6,000).
        source_language, target_language: languages of `tmx`, `jsonl`, `text` and `hf`; that of the target also chooses
            the tokenizer of BLEU, whatever the source.
        name, config: of `hf`: a name such as `wmt19` and a configuration such as `ru-en`, or a folder.
        side: of a pair, the text that tasks other than translation use.
    """

    source: Literal["toy", "tsv", "lines", "tmx", "jsonl", "text", "hf", "folder"] = "toy"
    train: str = ""
    valid: str = ""
    test: str = ""
    train_domains: str = ""
    valid_domains: str = ""
    test_domains: str = ""
    limit: Annotated[int, Meta(ge=0)] = 0
    source_language: Language = "ru"
    target_language: Language = "en"
    name: str = ""
    config: str = ""
    side: Literal["source", "target"] = "target"


class TokenizerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[tokenizer]` section: one vocabulary for all clients, never trained on private text.

    Attributes:
        train_on: `public` (a share of the corpus set aside and declared public) or a text or tsv file,
            also as .gz.
        public_share: of corpora that are not built in, the first part of the training file; no client trains on it. Of
            more than 400,000 public sentences so many are used, evenly spread.
        vocab_size: pieces, at most.
        file: a ready SentencePiece model instead.
    """

    train_on: str = "public"
    public_share: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    vocab_size: Annotated[int, Meta(ge=64, le=64000)] = 4000
    file: str = ""


class ClientsConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[clients]` section.

    Attributes:
        count: number of clients.
        split: who gets which pairs: `iid`, whole `domain`s (the biggest divided if there are fewer than clients), or
            `dirichlet` over domains.
        alpha: of `dirichlet`: the smaller, the more one-sided the clients.
        participation: chance of a client to take part in a round.
        late: chance of a participant's update to arrive after the close.
        duplicate: chance of one to arrive twice.
        cohorts: a `rounds.jsonl` whose cohorts are replayed instead.
        min_clients: fewest updates a round may combine; 0 for two thirds of the clients.
        max_share: no client weighs more than this in the mean.
        max_lag: most rounds a client catches up one by one; beyond, it takes the dense common model.
        folders: one folder of `trustformer prepare` a client, in the place of a split; sets the count.
    """

    count: Annotated[int, Meta(ge=1, le=1000)] = 3
    split: Literal["iid", "domain", "dirichlet"] = "iid"
    alpha: Annotated[float, Meta(gt=0)] = 0.5
    participation: Annotated[float, Meta(gt=0, le=1)] = 1.0
    late: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    duplicate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    cohorts: str = ""
    min_clients: Annotated[int, Meta(ge=0, le=1000)] = 0
    max_share: Annotated[float, Meta(ge=0.5, le=1)] = 0.6
    max_lag: Annotated[int, Meta(ge=1)] = 8
    folders: tuple[str, ...] = ()


class EnclaveConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The `[enclave]` section.

    Attributes:
        process: run the enclave as a process of its own; results are the same either way.
        restarts: how often a dead enclave process is replaced before the run ends with an error.
        release: `immediate`, or `acknowledged`: a round's key waits until two thirds of the clients have its manifest.
        rule: `mean` weighted by examples, or `trimmed_mean`: equal weights, without the extremes of every entry.
        trim: of `trimmed_mean`: share of the clients cut off at either end.
        max_norm: an update of a larger L2 norm is refused; where privacy.mechanism is `enclave`, one over
            privacy.clipping_norm, whatever this says.
    """

    process: bool = True
    restarts: Annotated[int, Meta(ge=0, le=1000)] = 3
    release: Literal["immediate", "acknowledged"] = "immediate"
    rule: Literal["mean", "trimmed_mean"] = "mean"
    trim: Annotated[float, Meta(ge=0, lt=0.5)] = 0.2
    max_norm: Annotated[float, Meta(ge=0.001, le=1e9)] = 1000.0


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole run. The defaults suit some thousand pairs of real text a client; `quickstart.toml` the toy corpus.

    Attributes:
        seed: fixes data split, G_0, batches, dropout, k-means and cohorts.
        rounds: of local training and exchange.
        threads: of torch; part of the config because sums depend on it.
        record_messages: keep every message, sealed and IN THE CLEAR, in `messages/`, for `trustformer attack`.
    """

    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 1
    rounds: Annotated[int, Meta(ge=1, le=100_000)] = 24
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    record_messages: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    clients: ClientsConfig = field(default_factory=ClientsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    enclave: EnclaveConfig = field(default_factory=EnclaveConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def min_clients(self) -> int:
        """Fewest updates of a round, resolved."""
        return self.clients.min_clients or max(1, -(-2 * self.clients.count // 3))

    @property
    def learner(self) -> ModelConfig:
        """The model as the method trains it: FFA-LoRA freezes half of every adapter."""
        if self.method.name != "ffa_lora":
            return self.model
        return msgspec.structs.replace(self.model, freeze=(*self.model.freeze, FACTORS_A))

    def to_toml(self) -> str:
        """The config as `load_config` reads it; of newer sections and keys only what is not the default.

        A codebook's `carry` is always there: its default was 1 once, and a record must not change with a default.
        """
        tree = msgspec.to_builtins(self)
        for section, names in _LATER.items():
            defaults = msgspec.to_builtins(type(getattr(self, section))())
            for name in names:
                if tree[section][name] == defaults[name]:
                    del tree[section][name]
        if not self.method.coded and self.method.carry == MethodConfig().carry:
            del tree["method"]["carry"]
        if not self.record_messages:
            del tree["record_messages"]
        for section in ("enclave", "privacy"):  # they hold only what is not the default
            if not tree[section]:
                del tree[section]
        return write_toml(tree)


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, or take the defaults, and apply `KEY=VALUE` overrides.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value; names the key.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text("utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"the config {path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the config {path} is not TOML: {error}") from None
    for override in overrides:
        _override(tree, override)
    _count_folders(tree)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(*explain(error, Config)) from None
    for key, given in leaves(msgspec.to_builtins(config)):
        for value in given if isinstance(given, (list, tuple)) else (given,):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"config: {key}: expected a finite number, got {value}")
            if isinstance(value, str) and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
                raise ConfigError(f"config: {key}: {value!r} holds a control character or is not UTF-8")
    check(config)
    return config


def _count_folders(tree: dict[str, Any]) -> None:
    """Set `clients.count` to the number of `clients.folders`."""
    clients = tree.get("clients")
    folders = clients.get("folders") if isinstance(clients, dict) else None
    if not (isinstance(clients, dict) and isinstance(folders, list) and folders):
        return
    if clients.setdefault("count", len(folders)) != len(folders):
        raise ConfigError(f"clients.count is {clients['count']}, clients.folders has {len(folders)}")


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE", "for example --set rounds=12")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # bare words are strings
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {key}: {section!r} is a value, not a section")
    tree[name] = value

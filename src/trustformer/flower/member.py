# SPDX-License-Identifier: Apache-2.0
"""`trustformer join`: one client of a federation, on the machine of its data owner.

Client, channel and codec are those of `trustformer run`. The host can ask this process to take part in the next round,
to answer another client, or to finish; which data, keys, policy and folders are used is in the client's own file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import BANNER, SimulatedAttester
from trustformer.codec.weights import Weights, weights_digest
from trustformer.errors import (
    ConfigError,
    EnclaveLostError,
    MessageError,
    NotReleasedError,
    ProtocolError,
    SealError,
    TrustformerError,
)
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.parties import RunJournal
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import Reporter
from trustformer.experiment.terms import keep_promise
from trustformer.federation.channel import Channel
from trustformer.federation.client import BehindError, Client, ForeignUpdateError
from trustformer.federation.common import longest_answer
from trustformer.federation.store import ClientStore
from trustformer.flower.agreement import experiment_digest, read_terms
from trustformer.flower.conversation import Conversation, RemoteSponsor, SupersededError
from trustformer.flower.learner import Learner
from trustformer.flower.node import BUSY, LostError, Node
from trustformer.flower.parcel import Parcel
from trustformer.flower.record import STANDING
from trustformer.flower.roll import names
from trustformer.flower.settings import NodeConfig
from trustformer.secure.identity import Identity

PASSING = (ProtocolError, EnclaveLostError, SealError, MessageError, LostError)
"""Failures after which the host may ask again; any other ends `join`."""
_RELEASE_PAUSE = (0.3, 5.0)
"""Seconds between two questions for a key: at first, and after many, times the pace."""
_LONG = 15.0
"""Seconds after which it is said what is waited for."""


class Member:
    """One client, ready to take part.

    Args:
        folder: of `node.toml` and all it names.
        directory: the client's state folder.
        reporter: shows progress.

    Raises:
        TrustformerError: a file that is missing, damaged or not what the terms say; naming it.
    """

    def __init__(self, folder: Path, directory: RunDirectory, reporter: Reporter) -> None:
        self.settings = settings = NodeConfig.load(folder / "node.toml")
        self._folder, self._reporter, self._directory = folder, reporter, directory
        self._config = config = load_config(folder / settings.config)
        torch.set_num_threads(config.threads)
        self._terms = read_terms(folder / settings.terms)
        self._learner = learner = Learner.load(folder, settings, config)
        start, method = learner.start, learner.method
        self._check(config, start)
        self._trains = partial(method.trains, rounds=config.rounds)
        if method.codec is None or (method.codec.upload, method.codec.answer) != (
            self._terms.upload,
            self._terms.answer,
        ):
            raise ConfigError("the terms describe other messages than this version makes", "install the host's version")
        keep_promise(directory, learner.promise, "restore this client's text and the version of opacus")
        if learner.promise is not None:
            reporter.note(f"privacy  {learner.promise}")
        self._pace = pace = max(1.0, len(self._terms.roster) / BUSY)
        node = Node(
            settings.superlink,
            folder / settings.ca,
            folder / settings.node_key,
            settings.bundle,
            self._directory.path / "node.id",
            longest_answer(self._terms, start if method.common else {}, config.clients.max_lag),
            pace,
        )
        self._node = node
        self._line = Conversation(node, settings.patience, reporter.note, pace)
        channel = Channel(
            *(settings.client, Identity.load(folder / settings.identity), self._terms),
            policy=Policy.load(folder / settings.policy),
            link=self._line,
            journal=RunJournal(self._directory),
        )
        self._client = Client(
            *(settings.client, [name for name, _ in self._terms.roster].index(settings.client), learner.examples),
            trainer=learner.trainer,
            store=ClientStore(self._directory.path),
            start=start,
            common=start if method.common else {},
            codec=method.codec,
            channel=channel,
            weighted=method.weighted,
            seed=config.seed,
            max_lag=config.clients.max_lag,
        )
        self._line.trained = self._client.state.trained
        if self._terms.provider == SimulatedAttester.kind:
            reporter.note(BANNER)
        pairs = f"{len(learner.examples):,} {learner.described}"
        reporter.note(f"client {settings.client}, {pairs}; {self._standing()}")

    def _check(self, config: Config, start: Weights) -> None:
        """What the terms bind must be what this client holds."""
        if self.settings.client not in (roster := [client for client, _ in self._terms.roster]):
            raise ConfigError(
                f"node.toml: client is {self.settings.client!r:.80}, and the terms have {names(roster)}",
                "give the id that init-federation wrote for this folder",
            )
        identity = Identity.load(self._folder / self.settings.identity)
        if self._terms.key_of(self.settings.client) != identity.public:
            raise ConfigError(
                f"{self.settings.identity} is not the key that the terms name for this client",
                f"take it from the folder that init-federation wrote for client {self.settings.client}",
            )
        held = experiment_digest(config, self._learner.tokenizer.digest, start, self._folder)
        if self._terms.experiment != held:
            raise ConfigError(
                "config, tokenizer or first model are not those the terms were made for",
                "take all files from one and the same init-federation",
            )

    def run(self) -> None:
        """Take part until the host says that the run is finished.

        Raises:
            AttestationError: the enclave is not one this client's policy allows; nothing was sent.
            TrustformerError: the host is gone, or this machine cannot go on.
        """
        over = False
        try:
            while not over:
                command = self._line.command()
                try:
                    over = self._obey(command)
                except SupersededError:
                    continue
                except PASSING as error:
                    if isinstance(error, ForeignUpdateError):  # asked again it would be so again
                        self._tell(self._line.part, error)
                        raise
                    what = f"round {command.round}" if command.round else command.kind
                    self._reporter.note(f"{what}: {error.message}")
                    self._tell(self._line.failed, error)
                except Exception as error:
                    self._tell(self._line.part, error)
                    raise
        finally:
            self._node.close(leave=not over)  # a SuperLink drops what a node said last once that node has left

    @staticmethod
    def _tell(how: Callable[[Exception], None], error: Exception) -> None:
        with suppress(TrustformerError):  # the line is down, or what the host asked was answered already
            how(error)

    def _obey(self, command: Parcel) -> bool:
        """Do what the host asks; return whether the run is over."""
        if command.kind == "sponsor":
            if not self._client.channel.greeted:
                self._greet()
            self._line.done("", self._client.share_common(command.body))
            return False
        if command.kind == "stand by":
            self._greet()
            self._line.done(STANDING)
            return False
        if command.kind == "finish":
            self._greet()
            if self._client.state.round < self._terms.rounds:
                raise ProtocolError(f"round {self._client.state.round}: the run is not over yet")
            self._save()
            self._line.done("finished")
            return True
        self._line.done(self._take_part(command.round))
        return False

    def _take_part(self, number: int) -> str:
        """Catch up, train, and send; return the receipt's status."""
        self._greet()
        if self._client.channel.welcome.round + 1 != number or number > self._terms.rounds:
            raise ProtocolError(f"the host asks for round {number}, the enclave is at another")
        report = partial(self._report, number)
        trains = self._trains(number)
        try:
            self._client.train(number, epochs=trains, report=report)
        except MessageError as error:  # weights that cannot be coded: asked again it would train to the same
            raise TrustformerError(error.message, error.hint) from None
        self._line.trained = self._client.state.trained
        status = self._client.contribute()
        what = f"loss {self._client.state.loss:.3f}" if trains else "exchange only"
        self._reporter.note(f"round {number} of {self._terms.rounds}: {status}; {what}")
        return status

    def _greet(self) -> None:
        began, told, pause = time.monotonic(), False, _RELEASE_PAUSE[0]
        while True:
            try:
                self._client.greet()
                return
            except BehindError as error:
                way = "taking the dense common model" if self._client.state.common else "going on with its own weights"
                self._reporter.note(f"{error.message}: {way}")
                self._client.ask_common(RemoteSponsor(self._line))
                return
            except NotReleasedError:
                waited = time.monotonic() - began
                if waited > self.settings.patience:
                    raise
                if not told and waited > _LONG:
                    told = True
                    self._reporter.note(
                        "waiting for the newest round's key: other clients have to say that they hold it"
                    )
                time.sleep(pause)
                pause = min(1.5 * pause, _RELEASE_PAUSE[1] * self._pace)

    def _report(self, number: int, what: str, done: int, total: int) -> None:
        unit = "tokens" if what == "training" else ""
        self._reporter.progress(f"round {number} · {what}", done, total, unit)

    def _save(self) -> None:
        state, folders = self._client.state, [self._folder / self.settings.model, self._folder / self.settings.common]
        for weights, folder in zip((state.weights, state.common), folders, strict=True):
            if weights:
                self._learner.save(weights, folder)
        result = {
            "client": self.settings.client,
            "rounds": state.round,
            "loss": state.loss,
            "weights_digest": weights_digest(state.weights).hex(),
            "common_digest": weights_digest(state.common).hex() if state.common else None,
        }
        if self._learner.promise is not None:
            result["privacy"] = self._learner.promise.to_dict()
        self._directory.write_json("result.json", result)
        self._reporter.note(f"finished: {self._progress()}; {self._use()}")

    def _standing(self) -> str:
        if self._client.state.round < self._terms.rounds or not (self._directory.path / "result.json").exists():
            return self._progress()
        return f"has the last round; stands by for others; {self._use()}"

    def _progress(self) -> str:
        state, rounds = self._client.state, self._terms.rounds
        if not (state.round or state.trained):
            return f"has taken part in none of {rounds} rounds yet"
        if state.pending is not None:
            what = f"; round {state.trained} is trained and its update made, not yet known to be combined"
        else:
            what = "" if state.trained == state.round else f", took part up to round {state.trained}"
        return f"adopted round {state.round} of {rounds}{what}"

    def _use(self) -> str:
        own, common = self._folder / self.settings.model, self._folder / self.settings.common
        also = f" (this client's own), {common} (all clients')" if self._client.state.common else ""
        return f"trustformer translate takes {own}{also}"


def join(folder: Path, reporter: Reporter) -> None:
    """Take part with the client of `folder`; raises as `Member` does."""
    directory = RunDirectory(folder / NodeConfig.load(folder / "node.toml").state)
    directory.make()
    with directory.locked():
        Member(folder, directory, reporter).run()

# SPDX-License-Identifier: Apache-2.0
"""Clients of one process that bring their own `torch.nn.Module` and training; the exchange is that of any run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from weakref import finalize, proxy

import msgspec
from msgspec.structs import replace
from torch import nn

from trustformer.codec.weights import Weights
from trustformer.errors import ConfigError, EnclaveLostError, ProtocolError, TrustformerError
from trustformer.experiment.config import ClientsConfig, Config, EnclaveConfig
from trustformer.experiment.parties import connect
from trustformer.experiment.record import RunDirectory
from trustformer.federation.round import Cohort, greet, run_round
from trustformer.library.modules import Own, Shared
from trustformer.methods import LORA, PRIVATE, MethodConfig


class Federation:
    """One client a module; all attest the enclave, seal what they send, and adopt what it releases.

    The first module's trainable tensors become the common model, and every module begins from it. What a module has
    frozen (`requires_grad = False`) and its buffers, such as running means, stay as they are at each client.
    Attestation is simulated: all parties are on this machine.

    Args:
        modules: of one architecture; changed in place, so that an optimizer keeps its parameters.
        examples: training examples of each client: its weight in the mean, of which none has more than `max_share`.
        folder: keeps keys, terms, states, receipts and released rounds, for one `Federation` at a time until its
            `close`. Where it holds this federation already, that is taken up again: modules get the weights their
            clients had, of an exchange that was cut off after the enclave had combined it those it came to.
        rounds: exchanges the terms allow.
        method: what is exchanged; the centroid exchange by default.
        max_share: largest weight of one client.
        seed: of k-means.
        process: run the enclave as a process of its own; results are the same either way.
        patience: seconds a client waits for the others in `meet`.

    Raises:
        ConfigError: modules that differ, a tensor that cannot be exchanged, nothing to exchange, a method that needs
            what only `trustformer run` has, another federation's folder, or one that is in use.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        examples: Sequence[int],
        folder: str | Path,
        *,
        rounds: int,
        method: MethodConfig | None = None,
        max_share: float = 0.6,
        seed: int = 1,
        process: bool = False,
        patience: float = 3600.0,
    ) -> None:
        if len(modules) != len(examples) or min(examples, default=0) < 1:
            raise ConfigError(f"{len(modules)} modules and the counts {list(examples)}", "one of each a client, from 1")
        if len({id(module) for module in modules}) < len(modules):
            raise ConfigError(
                "one module stands for two clients", "give each its own, such as copy.deepcopy of the first"
            )
        self._rounds, self._patience = rounds, patience
        config = Config(
            seed=seed,
            rounds=rounds,
            clients=ClientsConfig(count=len(modules), max_share=max_share),
            method=method or MethodConfig(),
            enclave=EnclaveConfig(process=process),
        )
        _check(config)
        # The owner's loop trains before every exchange: none of them is a closing one.
        config = replace(config, method=replace(config.method, closing_exchanges=0))
        directory = RunDirectory(Path(folder))
        directory.make()
        width = len(str(len(modules) - 1))
        self._owns = [Own(module) for module in modules]
        self._interrupted = False
        with ExitStack() as held:
            _take_alone(directory, held)
            shared = Shared.make(
                config, modules[0], {f"{i:0{width}d}": count for i, count in enumerate(examples)}, directory
            )
            self._parties = connect(config, shared, directory, rounds, lambda client: self._owns[int(client)])
            held.callback(self._parties.stop)
            if self._parties.host is None:
                raise ConfigError(f"method.name {config.method.name} exchanges nothing", "choose centroid or fedavg")
            self._host = self._parties.host
            self._settle()
            for own, client in zip(self._owns, self._parties.clients, strict=True):
                own.begin(client.state.weights)
            self._end = finalize(self, held.pop_all().close)  # at the program's end, or when this is dropped
        alive = proxy(self)  # not itself: a federation that is dropped lets go of its folder at once
        self._barrier = threading.Barrier(len(modules), action=lambda: alive.exchange())

    @property
    def rounds(self) -> int:
        """Exchanges so far."""
        while True:
            try:
                return self._host.round
            except EnclaveLostError:
                pass  # it was started again, and has kept what it closed

    @property
    def common(self) -> Weights:
        """The common model: trainable tensors by name, float32; empty where the method has none."""
        return dict(self._parties.clients[0].state.common)

    def bytes(self) -> dict[str, dict[str, int]]:
        """Bytes really sent by (`up`) and to (`down`) each client so far, sealed."""
        return {"up": self._parties.ledger.total("up"), "down": self._parties.ledger.total("down")}

    def exchange(self) -> None:
        """Send what every module has learnt since the last exchange, and change the modules to what comes back.

        Raises:
            TrustformerError: what went wrong; modules are as they were. Called again, unless the enclave has died too
                often, it goes on with what had been sent: training since then stays in the modules and counts in the
                next exchange.
        """
        if self._interrupted:
            raise ProtocolError(
                "an exchange was interrupted, or the federation closed",
                "call close(), and make the federation again with the same folder",
            )
        self._interrupted = True  # of what an interrupted request has done in the enclave nothing is known
        try:
            self._exchange()
            self._interrupted = False
        except TrustformerError:
            self._interrupted = False
            raise
        except OSError as error:
            self._interrupted = False
            where = f"{error.filename}: " if error.filename else ""
            raise TrustformerError(f"{where}{error.strerror or error}", "mend that, then exchange again") from None

    def _exchange(self) -> None:
        self._settle()
        self._hand_out()
        number = self.rounds + 1
        if number > self._rounds:
            raise ProtocolError(
                f"all {self._rounds} exchanges that the terms allow are done",
                "begin another federation in another folder",
            )
        self._parties.ledger.round = number
        clients = self._parties.clients
        run_round(number, clients, self._host, Cohort(tuple(client.id for client in clients)), lambda *_: None)
        self._hand_out()

    def meet(self) -> None:
        """Exchange once every client has come here, each in a thread of its own; return to all after it.

        Raises:
            TrustformerError: the exchange failed, or a client did not come in time.
        """
        try:
            self._barrier.wait(self._patience)
        except threading.BrokenBarrierError:
            raise ProtocolError(
                "the exchange failed, or a client did not come to it", "see the other threads"
            ) from None

    def leave(self) -> None:
        """Let nobody wait for this client: every `meet` fails from now on, and with it the other clients' training."""
        self._barrier.abort()

    def close(self) -> None:
        """End the enclave's process, if it has one, and let go of the folder. May be called again."""
        self._interrupted = True  # two that exchange in one folder would each release a result
        self._end()

    def _settle(self) -> None:
        """Let clients adopt what the enclave had combined when an exchange was cut off."""
        while min(client.state.round for client in self._parties.clients) < self.rounds:
            with suppress(EnclaveLostError):
                greet(self._parties.clients)

    def _hand_out(self) -> None:
        for own, client in zip(self._owns, self._parties.clients, strict=True):
            own.take(client.state)


def _check(config: Config) -> None:
    """Refuse what is out of bounds, which a constructor does not check, and what this library cannot keep to."""
    try:
        msgspec.convert(msgspec.to_builtins(config), Config)
    except (msgspec.ValidationError, TypeError) as error:
        message, _, key = str(error).partition(" - at `$.")
        where = f"Federation, {key[:-1]}" if key else "Federation"
        raise ConfigError(
            f"{where}: {message[:1].lower()}{message[1:]}", "docs/config.md says what it may be"
        ) from None
    method = config.method
    if method.name in PRIVATE:
        raise ConfigError(
            f"method.name {method.name} clips and noises nothing here: the library has no section privacy",
            "use trustformer run with privacy.mechanism",
        )
    if method.name in LORA:
        raise ConfigError(
            f"method.name {method.name} needs model.lora_rank, which the library does not have",
            "choose fedavg, for modules of which only adapters are trainable",
        )
    uses_past = (method.name, method.variant) == ("centroid", "partition") and method.partition in ("drift", "history")
    if uses_past:
        raise ConfigError(
            f"method.partition {method.partition} needs the first common model, which the library does not keep",
            "choose rotating or random",
        )


def _take_alone(directory: RunDirectory, held: ExitStack) -> None:
    """Keep the folder: two enclaves of one federation would each release a result of one exchange."""
    try:
        held.enter_context(directory.locked())
    except ConfigError:
        raise ConfigError(f"{directory.path}: another Federation is at work here", "close() it first") from None

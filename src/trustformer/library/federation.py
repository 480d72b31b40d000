# SPDX-License-Identifier: Apache-2.0
"""Clients of one process that bring their own `torch.nn.Module` and training; the exchange is that of any run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from weakref import finalize, proxy

from msgspec.structs import replace
from torch import nn

from trustformer.codec.weights import Weights
from trustformer.errors import ConfigError, EnclaveLostError, ProtocolError, TrustformerError
from trustformer.experiment.config import ClientsConfig, Config, EnclaveConfig
from trustformer.experiment.parties import connect
from trustformer.experiment.record import RunDirectory
from trustformer.federation.round import Cohort, greet, run_round
from trustformer.library.checks import check_modules, check_settings
from trustformer.library.modules import Own, Shared
from trustformer.methods import MethodConfig


class Federation:
    """One client a module; all attest the enclave, seal what they send, and adopt what it releases.

    The first module's trainable tensors become the common model, and every module begins from it. What a module has
    frozen (`requires_grad = False`) and its buffers, such as running means, stay as they are at each client.
    Attestation is simulated: all parties are on this machine. As a context manager it closes at the end.

    Args:
        modules: of one architecture, sharing nothing that is trained; changed in place, so that an optimizer keeps its
            parameters. Exchanged in 32-bit floats.
        examples: training examples of each client: its weight in the mean, of which none has more than `max_share`.
        folder: keeps keys, terms, states, receipts and released rounds, for one `Federation` at a time until its
            `close`. Where it holds this federation already, that is taken up again: modules get the weights their
            clients had, of an exchange that was cut off after the enclave had combined it those it came to.
        rounds: the most exchanges that the terms allow.
        method: what is exchanged; the centroid exchange by default.
        max_share: largest weight of one client.
        seed: of k-means.
        process: run the enclave as a process of its own; results are the same either way.
        patience: seconds a client waits for the others in `meet`.

    Raises:
        ConfigError: modules that differ, a tensor that cannot be exchanged, nothing to exchange, a method that needs
            what only `trustformer run` has, a folder that is in use or another federation's; says what differs.
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
        counts = check_modules(modules, examples)
        self._rounds, self._patience = rounds, patience
        config = Config(
            seed=seed,
            rounds=rounds,
            clients=ClientsConfig(count=len(modules), max_share=max_share),
            method=method or MethodConfig(),
            enclave=EnclaveConfig(process=process),
        )
        check_settings(config)
        # The owner's loop trains before every exchange: none of them is a closing one.
        config = replace(config, method=replace(config.method, closing_exchanges=0))
        directory = RunDirectory(Path(folder))
        directory.make()
        width = len(str(len(modules) - 1))
        self._owns = [Own(client, module) for client, module in enumerate(modules)]
        self._max_norm = config.enclave.max_norm
        self._interrupted = self._closed = False
        self._failure: tuple[str, str] | None = None  # of the last meeting
        with ExitStack() as held:
            _take_alone(directory, held)
            shared = Shared.make(
                config, modules[0], {f"{i:0{width}d}": count for i, count in enumerate(counts)}, directory
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
        self._barrier = threading.Barrier(len(modules), action=lambda: alive._exchange_for_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rounds(self) -> int:
        """Exchanges so far."""
        while not self._closed:
            try:
                return self._host.round
            except EnclaveLostError:
                pass  # it was started again, and has kept what it closed
        return min(client.state.round for client in self._parties.clients)

    @property
    def common(self) -> Weights:
        """The common model: trainable tensors by name, float32; empty where the method has none.

        A matrix has a row for each output: those of transformers' `Conv1D` (GPT-2) are transposed.
        """
        return dict(self._parties.clients[0].state.common)

    def bytes(self) -> dict[str, dict[str, int]]:
        """Bytes really sent by (`up`) and to (`down`) each client so far, sealed."""
        return {"up": self._parties.ledger.total("up"), "down": self._parties.ledger.total("down")}

    def exchange(self) -> None:
        """Send what every module has learnt since the last exchange, and change the modules to what comes back.

        Raises:
            MessageError: weights that are not finite, or too far from the common model; names client and tensor.
                Nothing was sent or kept.
            ConfigError: a module that no longer has the tensors it began with; the same holds.
            TrustformerError: what else went wrong; modules are as they were, unless the message says that the others
                have exchanged. Called again, unless the enclave has died too often, it goes on with what had been sent:
                training since then stays in the modules and counts in the next exchange.
        """
        self._refuse_closed()
        if self._interrupted:
            raise ProtocolError(
                "an exchange was interrupted", "call close(), and make the federation again with the same folder"
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
        for own, client in zip(self._owns, self._parties.clients, strict=True):
            own.check(client.state.common, self._max_norm)
        self._settle()
        self._hand_out()
        number = self.rounds + 1
        if number > self._rounds:
            raise ProtocolError(
                f"all {self._rounds} exchanges that the terms allow are done",
                "begin another federation in another folder; its first module is what all begin from",
            )
        self._parties.ledger.round = number
        clients = self._parties.clients
        cohort = Cohort(tuple(client.id for client in clients))
        statuses = run_round(number, clients, self._host, cohort, lambda *_: None)
        self._hand_out()
        if refused := [client for client, status in statuses.items() if status == "refused"]:
            raise ProtocolError(
                f"the others have exchanged, but the enclave refused what client {', '.join(refused)} sent",
                "it is probably out of bounds: mend that module, then exchange again",
            )

    def meet(self) -> None:
        """Exchange once every client has come here, each in a thread of its own; return to all after it.

        Raises:
            TrustformerError: the exchange failed, for all alike, as `exchange` does: all may come here again. Or a
                client has left or did not come in time, or the federation was closed: nobody can exchange here again.
        """
        try:
            self._barrier.wait(self._patience)
        except threading.BrokenBarrierError:
            self._refuse_closed()
            raise ProtocolError(
                "the exchange broke off, or a client has left or did not come in time", "see the other threads"
            ) from None
        if self._failure is not None:
            message, hint = self._failure
            raise ProtocolError(f"the exchange failed: {message}", hint)

    def _exchange_for_all(self) -> None:
        self._failure = None
        try:
            self.exchange()
        except TrustformerError as error:
            self._failure = error.message, error.hint

    def leave(self) -> None:
        """Let nobody wait for this client: every `meet` fails from now on, and with it the other clients' training."""
        self._barrier.abort()

    def close(self) -> None:
        """End the enclave's process, if it has one, and let go of the folder; nobody waits in `meet` any longer.

        May be called again. An exchange of `meet` that is under way is waited for.
        """
        self._closed = True  # two that exchange in one folder would each release a result
        self._barrier.abort()
        self._end()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ProtocolError("the federation is closed", "make it again with the same folder")

    def _settle(self) -> None:
        """Let clients adopt what the enclave had combined when an exchange was cut off."""
        while min(client.state.round for client in self._parties.clients) < self.rounds:
            with suppress(EnclaveLostError):
                greet(self._parties.clients)

    def _hand_out(self) -> None:
        for own, client in zip(self._owns, self._parties.clients, strict=True):
            own.take(client.state)


def _take_alone(directory: RunDirectory, held: ExitStack) -> None:
    """Keep the folder: two enclaves of one federation would each release a result of one exchange."""
    try:
        held.enter_context(directory.locked())
    except ConfigError:
        raise ConfigError(f"{directory.path}: another Federation is at work here", "close() it first") from None

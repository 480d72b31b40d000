# SPDX-License-Identifier: Apache-2.0
"""A client's folder that was copied and joined from twice: who is named, who goes on, and that no state is damaged."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from flower_kit import free_address
from wire import Notes, Threaded, Wire

from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory
from trustformer.federation.client import ForeignUpdateError
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.member import join
from trustformer.flower.node import LostError, Node
from trustformer.flower.settings import HostConfig
from trustformer.flower.setup import init_federation
from trustformer.flower.superlink import SuperLink

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what flwr itself uses
]
CLIENTS = ("0", "1", "2")
ONLINE = "another join with its key is online"


def test_a_copy_does_not_take_the_place_of_a_process_that_is_online(tmp_path: Path) -> None:
    """A killed process of the same folder leaves its place to the next one; what came in after it does not."""
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    address, bundle = free_address(), "0" * 64

    def node(folder: str) -> Node:
        files = tmp_path / "tls" / "ca.crt", tmp_path / "node.key", bundle, tmp_path / folder / "node.id"
        return Node(address, *files, 2**20)

    with ExitStack() as stack:
        superlink = SuperLink(tmp_path / "superlink", address, tmp_path / "tls", {"0": tmp_path / "node.pub"})
        stack.callback(superlink.stop)
        superlink.start()
        post = stack.enter_context(superlink.run())
        (tmp_path / "state").mkdir()
        first, second, third = node("state"), node("state"), node("state")
        first.connect()
        stack.callback(first.close)
        shutil.copytree(tmp_path / "state", tmp_path / "copy")
        with pytest.raises(LostError, match=ONLINE):
            node("copy").connect()
        first.close(leave=False)  # killed
        second.connect()
        stack.callback(second.close)
        memo = tmp_path / "state" / "node.id"
        os.utime(memo, (memo.stat().st_atime, memo.stat().st_mtime - 20))  # its last sign of life is older than that
        with pytest.raises(LostError, match=ONLINE):
            third.connect()
        assert post.nodes() == set(superlink.clients)


def test_a_copy_that_joins_after_rounds_without_it_ends_by_name_and_the_first_goes_on(
    tmp_path: Path, settings: list[str], mini_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*settings, "rounds=1", "enclave.release=acknowledged", "train.cooldown=1"])
    init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig(probe=60.0))
    own, copy, kept = tmp_path / "fed" / "client-0", tmp_path / "copy", tmp_path / "kept"
    shutil.copytree(own, copy)
    fed = Threaded(tmp_path / "fed", Wire(), monkeypatch)
    fed.start(*CLIENTS)
    fed.end()
    result = (own / "state" / "result.json").read_bytes()
    (tmp_path / "fed" / "host" / "finished.json").unlink()
    own.rename(kept)
    copy.rename(own)

    again = Threaded(tmp_path / "fed", Wire(), monkeypatch)
    again.start("0")
    error = again.error("0")
    assert isinstance(error, ForeignUpdateError)
    assert error.message == "round 1: the manifest lists an update this client did not send"
    assert "go on with the copy of this client's folder that sent it" in error.hint
    assert again.said.has("client 0 failed with 'ForeignUpdateError'")

    shutil.rmtree(own)
    kept.rename(own)
    last = Threaded(tmp_path / "fed", Wire(), monkeypatch)
    last.start(*CLIENTS)
    last.end()
    assert (own / "state" / "result.json").read_bytes() == result


def test_a_folder_joined_twice_at_once_and_one_of_a_stranger_are_refused_by_name(
    tmp_path: Path, settings: list[str], mini_model: None
) -> None:
    config = load_config(None, [*settings, "enclave.release=acknowledged"])
    init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig())
    folder = tmp_path / "fed" / "client-0"
    state, said = RunDirectory(folder / "state"), Notes()
    state.make()
    with state.locked(), pytest.raises(ConfigError, match="client-0/state: another process runs here"):
        join(folder, said)
    text = (folder / "node.toml").read_text("utf-8")
    (folder / "node.toml").write_text(text.replace('client = "0"', 'client = "zero"'), "utf-8")
    with pytest.raises(ConfigError, match="client is 'zero', and the terms have 0, 1, 2"):
        join(folder, said)
    (folder / "node.toml").write_text(text, "utf-8")
    for name, what in (("terms.bin", "terms"), ("tokenizer.model", "tokenizer"), ("start.safetensors", "first model")):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(b"damaged")
        with pytest.raises(ConfigError, match=f"the {what} .*{name}") as refused:
            join(folder, said)
        assert "init-federation" in refused.value.hint
        (folder / name).write_bytes(good)
    assert not (folder / "state" / "state.safetensors").exists()

# SPDX-License-Identifier: Apache-2.0
"""`host.toml` and `node.toml`: what is wrong is said in words for who wrote it, whatever key it is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from trustformer.errors import ConfigError
from trustformer.flower.settings import HostConfig, NodeConfig, listening

NODE = f'client = "0"\nsuperlink = "localhost:9443"\nbundle = "{"ab" * 32}"\n'
WRONG = ["true", "[1]", "nan", "-1", "1e300", '"a\\u0000b"', '"\\n"', "{ a = 1 }", "1979-05-27"]
"""Values that no key takes."""
KEYS = [(kind, field.name) for kind in (HostConfig, NodeConfig) for field in msgspec.structs.fields(kind)]
INTERNAL = re.compile(r"`|\^|regex|Object|field|\b(str|int|float|bool|array)\b|\\[AZs]")


def _refusal(kind: type[HostConfig] | type[NodeConfig], text: str | bytes, folder: Path) -> ConfigError:
    path = folder / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refused:
        kind.load(path)
    assert str(path) in refused.value.message
    assert not INTERNAL.search(refused.value.message.replace(str(path), "")), refused.value.message
    return refused.value


def _with(kind: type[HostConfig] | type[NodeConfig], key: str, value: str) -> str:
    others = NODE.splitlines() if kind is NodeConfig else []
    return "\n".join([*(line for line in others if not line.startswith(f"{key} ")), f"{key} = {value}"])


@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_every_key_says_in_plain_words_what_it_may_be(
    kind: type[HostConfig] | type[NodeConfig], key: str, tmp_path: Path
) -> None:
    for value in WRONG:
        assert re.search(
            rf"{key} is .*; it must be [a-zA-Z\"]", _refusal(kind, _with(kind, key, value), tmp_path).message
        )


@pytest.mark.parametrize("key", ["listen", "enclave"])
def test_a_port_out_of_range_is_told_the_range(key: str, tmp_path: Path) -> None:
    for wrong in (
        "10.0.0.5:65536",
        "10.0.0.5:70000",
        "10.0.0.5:0",
        "10.0.0.5:080",
        "10.0.0.5",
        ":9443",
        "http://a:9443",
    ):
        message = _refusal(HostConfig, f'{key} = "{wrong}"', tmp_path).message
        assert f"{key} is '{wrong}'; it must be HOST:PORT" in message
        assert "the port from 1 to 65535" in message
    for right in ("10.0.0.5:1", "federation.example.org:65535", "[::1]:9443"):
        (tmp_path / "right.toml").write_text(f'{key} = "{right}"', "utf-8")
        assert getattr(HostConfig.load(tmp_path / "right.toml"), key) == right


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("127.0.0.1:9443", "127.0.0.1:9443"),
        ("localhost:9443", "localhost:9443"),
        ("[::1]:9443", "[::1]:9443"),
        ("10.0.0.5:9443", "0.0.0.0:9443"),
        ("federation.example.org:9443", "0.0.0.0:9443"),
        ("[2001:db8::5]:9443", "[::]:9443"),
    ],
)
def test_a_host_listens_where_its_clients_reach_it(address: str, listen: str) -> None:
    assert listening(address) == listen
    assert HostConfig(listen=listen).listen == listen


@pytest.mark.parametrize("address", ["", "9443", ":9443", "::1:9443", "[::1]", "host:0", "host:65536", "host:x"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        listening(address)


def test_unknown_and_missing_keys_and_what_is_no_toml_are_named(tmp_path: Path) -> None:
    unknown = _refusal(HostConfig, "deadlin = 3.0", tmp_path)
    assert "unknown key 'deadlin'" in unknown.message
    assert unknown.hint == "did you mean deadline?"
    assert "superlink is missing; it must be HOST:PORT" in _refusal(NodeConfig, 'client = "0"', tmp_path).message
    for text in ("deadline 3", b"\xff\xfe", "a = " + "[" * 5000):
        assert "is not TOML" in _refusal(HostConfig, text, tmp_path).message


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for settings in (HostConfig(enclave="127.0.0.1:7911"), NodeConfig(client="0", superlink="h:1", bundle="ab" * 32)):
        (tmp_path / "written.toml").write_text(settings.to_toml(), "utf-8")
        assert type(settings).load(tmp_path / "written.toml") == settings

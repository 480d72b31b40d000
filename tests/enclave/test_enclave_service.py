# SPDX-License-Identifier: Apache-2.0
"""The enclave process: what it loads, what its frames may be, how it ends. Numbers are those of the protocol's list."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_kit import Party, connect, drift, frame, honest_round, read_reply

from trustformer.enclave import service
from trustformer.errors import (
    ConfigError,
    EnclaveLostError,
    MessageError,
    ProtocolError,
    SealError,
    TrustformerError,
)
from trustformer.federation.remote import RemoteEnclave
from trustformer.federation.temporary import LONGEST
from trustformer.message import Reader, enc


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path / "run")


@pytest.fixture
def remote(party: Party) -> Iterator[RemoteEnclave]:
    enclave = party.remote()
    yield enclave
    enclave.stop()


@pytest.fixture
def serving(party: Party, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = tmp_path / "s"
    process = subprocess.Popen(party.command(path), stderr=subprocess.DEVNULL)
    connect(path, process).close()
    yield process, path
    process.terminate()
    process.wait(20)


def status_of(path: Path) -> bytes:
    with connect(path) as connection:
        connection.sendall(frame(service.STATUS, b""))
        return read_reply(connection)


def test_the_process_loads_numpy_and_cryptography_only(party: Party, tmp_path: Path) -> None:
    program = (
        "import json, runpy, sys\n"
        "sys.argv = ['enclave', '--help']\n"
        "try:\n    runpy.run_module('trustformer.enclave', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "loaded = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "json.dump(sorted(n for n in loaded if not n.startswith('_')), open(sys.argv[-1] + '.json', 'w'))\n"
    )
    program = program.replace("open(sys.argv[-1] + '.json', 'w')", f"open({str(tmp_path / 'loaded')!r}, 'w')")
    subprocess.run([sys.executable, "-I", "-B", "-c", program], check=True, stdout=subprocess.DEVNULL)
    loaded = set(json.loads((tmp_path / "loaded").read_text()))
    assert loaded <= {"numpy", "cryptography", "cffi", "trustformer"}, loaded
    assert {"numpy", "cryptography", "trustformer"} <= loaded


def test_what_a_running_process_has_mapped(remote: RemoteEnclave) -> None:
    mapped = Path(f"/proc/{remote.pid}/maps").read_text()
    assert "numpy" in mapped
    for name in ("torch", "msgspec", "safetensors", "sentencepiece", "dcap_qvl"):
        assert f"/{name}" not in mapped, name


def test_core_dumps_are_off_and_the_socket_is_private(serving: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = serving
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_round_over_the_socket(party: Party, remote: RemoteEnclave) -> None:
    host = party.host(remote)
    players = party.players(host)
    combined = honest_round(host, players)
    assert host.round == 1
    assert remote.accepted == ()
    assert set(combined) == set(drift(0))


def test_errors_come_back_as_what_they_are(party: Party, remote: RemoteEnclave) -> None:
    with pytest.raises(ProtocolError, match="close: round 7") as refused:
        remote.close(7)
    assert type(refused.value) is ProtocolError
    with pytest.raises(MessageError, match="hello"):
        remote.hello(b"nonsense")
    player = next(iter(party.players(party.host(remote)).values()))
    player.channel.identity = party.identities["c1"]
    with pytest.raises(SealError):
        player.hello()
    with pytest.raises(ProtocolError, match="2 are needed") as few:
        remote.close(1)  # 44: a deadline with too few updates
    assert few.value.hint


class FourGigabytes(bytes):
    """As long as no frame can say, and nothing is allocated."""

    def __len__(self) -> int:
        return 2**32


@pytest.mark.parametrize("over", [b"x" * 5000, FourGigabytes()])
def test_a_request_that_is_too_long_costs_neither_the_process_nor_what_it_has_accepted(
    party: Party, remote: RemoteEnclave, over: bytes
) -> None:
    host = party.host(remote)
    players = party.players(host)
    first, pid = players["c0"], remote.pid
    first.hello()
    assert first.channel.upload(first.update(drift(0))) == "accepted"
    for name, request in (("hello", host.hello), ("sync", remote.sync)):
        with pytest.raises(MessageError, match=f"{name}: {len(over)} bytes where the run's terms allow 4096"):
            request(over)
    limit = service.frame_limits(party.config)[service.UPLOAD]
    with pytest.raises(MessageError, match=f"upload: .* bytes where the run's terms allow {limit}"):
        host.upload(over if len(over) > limit else bytes(limit + 1))
    with pytest.raises(MessageError) as told:
        remote.hello(bytes(service.SMALL))  # the longest that is passed on
    assert "terms allow" not in told.value.message
    assert (remote.pid, host.accepted) == (pid, ("c0",))
    second = players["c1"]
    second.hello()
    assert second.channel.upload(second.update(drift(1))) == "accepted"
    host.close(1)
    assert [client for client, _ in first.adopt()[0][0].uploads] == ["c0", "c1"]
    assert remote.pid == pid


@pytest.mark.parametrize(
    "head",
    [
        struct.pack(">I", 0) + b"H",
        struct.pack(">I", 2**32 - 1) + b"U",
        struct.pack(">I", 2**31) + b"H",
        struct.pack(">I", service.SMALL + 2) + b"S",
        struct.pack(">I", 2) + b"?",
        struct.pack(">I", 10) + b"X",
        struct.pack(">I", 10) + b"\0",
    ],
)
def test_36_a_lying_frame_is_refused_unread(serving: tuple[subprocess.Popen[bytes], Path], head: bytes) -> None:
    process, path = serving
    before = peak_memory(process.pid)
    with connect(path) as connection:
        connection.sendall(head)
        reply = read_reply(connection)
        assert reply[:1] == b"\1"
        assert Reader(reply[1:], "error").text() == "MessageError"
        assert connection.recv(1) == b""
    assert peak_memory(process.pid) - before < 2**20
    assert status_of(path)[:1] == b"\0"


def peak_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_frames_cut_off_anywhere_leave_the_service_alive(
    party: Party, serving: tuple[subprocess.Popen[bytes], Path]
) -> None:
    _, path = serving
    whole = frame(service.HELLO, b"x" * 100)
    for cut in (0, 1, 4, 5, 50, len(whole)):  # the last: gone before the answer
        with connect(path) as connection:
            connection.sendall(whole[:cut])
    with connect(path) as silent:  # says nothing, and holds nobody up
        assert status_of(path) == b"\0" + enc(0, party.config.digest)
        silent.sendall(frame(service.STATUS, b""))
        assert read_reply(silent) == b"\0" + enc(0, party.config.digest)


def test_51_sigterm_ends_at_once_and_cleanly(party: Party, tmp_path: Path) -> None:
    path = tmp_path / "s"
    process = subprocess.Popen(party.command(path), stderr=subprocess.PIPE)
    with connect(path, process) as connection:
        connection.sendall(frame(service.STATUS, b""))
        assert read_reply(connection) == b"\0" + enc(0, party.config.digest)  # it is at work
        connection.sendall(frame(service.HELLO, b"x" * 10)[:8])  # in the middle of a frame
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in said
    assert not path.exists()


def test_the_process_ends_with_its_last_connection(party: Party, tmp_path: Path) -> None:
    path = tmp_path / "s"
    process = subprocess.Popen(party.command(path, "--until-disconnect"), stderr=subprocess.DEVNULL)
    connect(path, process).close()
    assert process.wait(20) == 0


def test_54_argv_and_environment_change_nothing(party: Party, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    marker = tmp_path / "marker"
    for name in ("sitecustomize.py", "numpy.py", "startup.py"):
        (evil / name).write_text(f"open({str(marker)!r}, 'w').close()\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(evil),
        "PYTHONSTARTUP": str(evil / "startup.py"),
        "PYTHONHOME": "/nonexistent",
        "PYTHONINSPECT": "1",
    }
    path = tmp_path / "s"
    process = subprocess.Popen(party.command(path), stderr=subprocess.DEVNULL, env=environment, cwd=evil)
    try:
        connect(path, process).close()
        assert not marker.exists()
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--debug"], 2, b"unrecognized arguments"),
        (["-c", "print(1)"], 2, b"unrecognized arguments"),
        (["--prov", "gramine-dcap"], 2, b"unrecognized arguments"),
        (["--provider", "gramine-dcap"], 2, b"error: the terms say provider 'simulated'"),
        (["--terms", "/nonexistent"], 2, b"cannot be read"),
        (["--evidence", "/nonexistent"], 2, b"no complete simulated root"),
        (["--socket", "/tmp/" + "x" * 110], 2, b"longer than 107 bytes"),
    ],
)
def test_54_other_arguments_are_refused(party: Party, tmp_path: Path, extra: list[str], code: int, said: bytes) -> None:
    process = subprocess.run([*party.command(tmp_path / "s"), *extra], capture_output=True, timeout=60)
    assert process.returncode == code
    assert said in process.stderr
    assert b"Traceback" not in process.stderr


def test_a_temporary_folder_is_as_long_as_a_socket_lets_it_be(
    party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = tmp_path.parent / ("x" * (LONGEST - len(str(tmp_path.parent)) - 1))
    for folder in (longest, longest.with_name(longest.name + "x")):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(longest))
    party.remote().stop()
    monkeypatch.setattr(tempfile, "tempdir", f"{longest}x")
    with pytest.raises(ConfigError, match="temporary folder") as error:
        party.remote()
    assert "TMPDIR" in error.value.hint
    assert not list(Path(f"{longest}x").iterdir())


def test_54_a_start_that_the_environment_could_change_is_refused(party: Party, tmp_path: Path) -> None:
    command = [part for part in party.command(tmp_path / "s") if part != "-I"]
    process = subprocess.run(command, capture_output=True, timeout=60)
    assert process.returncode == 2
    assert b"python -I -B -m trustformer.enclave" in process.stderr


def test_two_enclaves_do_not_share_a_state(party: Party, remote: RemoteEnclave, tmp_path: Path) -> None:
    process = subprocess.run(party.command(tmp_path / "s"), capture_output=True, timeout=60)
    assert process.returncode == 2
    assert b"another enclave uses" in process.stderr


def test_48_an_altered_state_does_not_start(party: Party, remote: RemoteEnclave) -> None:
    host = party.host(remote)
    honest_round(host, party.players(host))
    remote.stop()
    state = party.folder / "state" / "state.sealed"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(ConfigError, match="altered"):
        party.remote()


def test_49_a_killed_enclave_counts_nothing_twice(party: Party, remote: RemoteEnclave) -> None:
    host = party.host(remote)
    players = party.players(host)
    first = players["c0"]
    first.hello()
    update = first.update(drift(0))
    assert first.channel.upload(update) == "accepted"
    os.kill(remote.pid, signal.SIGKILL)
    with pytest.raises(EnclaveLostError):
        first.channel.upload(update)
    with pytest.raises(ProtocolError, match="another run or boot"):
        first.channel.upload(update)
    for index, player in enumerate(players.values()):
        player.hello()
        sent = update if player is first else player.update(drift(index))
        assert player.channel.upload(sent) == "accepted"
        assert player.channel.upload(sent) == "accepted"
    host.close(1)
    manifest, _ = first.adopt()[0]
    assert dict(manifest.uploads)["c0"] == update.commitment
    assert len(manifest.uploads) == 3


def test_an_enclave_that_hangs_counts_as_dead(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trustformer.federation.remote.REPLY_SECONDS", 1.0)
    remote = party.remote()
    try:
        os.kill(remote.pid, signal.SIGSTOP)
        with pytest.raises(EnclaveLostError, match="was started again"):
            _ = remote.round
        monkeypatch.undo()
        assert remote.round == 0
    finally:
        remote.stop()


def test_the_socket_of_a_killed_process_is_taken_over(party: Party, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    process = subprocess.Popen(party.command(path), stderr=subprocess.DEVNULL)
    connect(path, process).close()
    process.terminate()
    assert process.wait(20) == 0


def test_a_process_without_file_descriptors_goes_on(serving: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = serving
    _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    used = max(int(name.name) for name in Path(f"/proc/{process.pid}/fd").iterdir()) + 1
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used, most))
    with connect(path) as refused:
        refused.sendall(frame(service.STATUS, b""))
        refused.settimeout(0.5)
        with pytest.raises(TimeoutError):
            refused.recv(1)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
        refused.settimeout(20)
        assert read_reply(refused)[:1] == b"\0"
    assert status_of(path)[:1] == b"\0"


@pytest.mark.parametrize("deaths", [1, 4])
def test_a_process_killed_as_it_starts_is_started_again(
    party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    python = tmp_path / "python"  # kills itself so many times before it becomes the real one
    python.write_text(
        f'#!/bin/sh\necho >> {tmp_path}/starts\n[ "$(wc -l < {tmp_path}/starts)" -gt {deaths} ] || kill -9 $$\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    if deaths > 3:  # restarts
        with pytest.raises(TrustformerError, match="killed whenever it starts"):
            party.remote()
        return
    enclave = party.remote()
    assert enclave.round == 0
    enclave.stop()

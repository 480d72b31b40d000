# SPDX-License-Identifier: Apache-2.0
"""How a signed release becomes part of a policy, and how an older one is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trustformer.attestation.errors import BadSignature
from trustformer.attestation.parsing import parse_time
from trustformer.attestation.pinning import Pinned, pin
from trustformer.attestation.policy_file import MAX_POLICY_BYTES, read_policy_file
from trustformer.attestation.release import Release, sign_release
from trustformer.errors import ConfigError, TrustformerError
from trustformer.secure.identity import Identity

NEW, OLD = "ab" * 32, "cd" * 32
NOON = "2025-05-01T12:00:00Z"
NOW = parse_time(NOON, "noon")
RELEASE = Release(
    version="1.4.0",
    time=NOON,
    mrenclave=(NEW,),
    min_isv_svn=4,
    advisories=("INTEL-SA-00615",),
    min_tcb_evaluation_data_number=17,
)


class Desk:
    """A publisher, and a client's policy beside releases that somebody handed over."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.policy = folder, folder / "policy.toml"
        self.publisher = Identity.generate()

    def release(self, by: Identity | None = None, **fields: Any) -> Path:
        release = msgspec.structs.replace(RELEASE, **fields)
        data = sign_release(release, by or self.publisher, now=parse_time(release.time, "the release"))
        path = self.folder / f"{hashlib.sha256(data).hexdigest()[:8]}.json"
        path.write_bytes(data)
        return path

    def pin(self, release: Path, by: Identity | None = None, *, now: int = NOW, older: bool = False) -> Pinned:
        return pin(self.policy, release, (by or self.publisher).public, now=now, older=older)

    def refuses(self, release: Path, by: Identity | None = None, *, now: int = NOW, match: str) -> str:
        """Pin what must be refused and change nothing; return the hint."""
        before = self.policy.read_bytes() if self.policy.exists() else None
        with pytest.raises(ConfigError, match=match) as refused:
            self.pin(release, by, now=now)
        assert (self.policy.read_bytes() if self.policy.exists() else None) == before
        return refused.value.hint


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_pin_makes_a_policy(desk: Desk) -> None:
    pinned = desk.pin(desk.release())
    policy = read_policy_file(desk.policy)
    assert (policy, pinned.file) == (pinned.policy, "made")
    assert (policy.mrenclave, policy.min_isv_svn, policy.advisories) == ((NEW,), 4, ("INTEL-SA-00615",))
    assert policy.min_tcb_evaluation_data_number == 17
    assert not policy.allow_simulated


def test_pin_replaces_measurements_and_never_lowers_a_minimum(desk: Desk) -> None:
    desk.policy.write_text(
        f'mrenclave = ["{OLD}"]\nmin_isv_svn = 9\nadvisories = ["INTEL-SA-00289"]\n'
        'tcb_status = ["UpToDate", "SWHardeningNeeded"]\nppid = ["d04ec06d4e6d92dc90d0ad3cf5ee2ddf"]\n'
    )
    pinned = desk.pin(desk.release())
    policy = read_policy_file(desk.policy)
    assert (pinned.added, pinned.removed, pinned.accepted) == ((NEW,), (OLD,), ("INTEL-SA-00615",))
    assert (policy.mrenclave, policy.min_isv_svn) == ((NEW,), 9)
    assert policy.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert policy.tcb_status == ("UpToDate", "SWHardeningNeeded")
    assert policy.ppid == ("d04ec06d4e6d92dc90d0ad3cf5ee2ddf",)


def test_a_release_a_second_older_is_refused(desk: Desk) -> None:
    desk.pin(desk.release())
    hint = desk.refuses(desk.release(time="2025-05-01T11:59:59Z", mrenclave=(OLD,)), match="older than 1.4.0")
    assert "--older" in hint


def test_of_two_releases_of_one_second_the_first_pinned_stays(desk: Desk) -> None:
    desk.pin(desk.release())
    desk.refuses(desk.release(mrenclave=(OLD,)), match="of the same second")
    desk.refuses(desk.release(version="1.4.1"), match="of the same second")


def test_the_same_release_again_changes_nothing(desk: Desk) -> None:
    desk.policy.write_text(f'# ours\nmrenclave = [\n  "{NEW.upper()}",  # built by us\n]\n')
    desk.pin(desk.release())
    before = desk.policy.read_bytes()
    assert b"# built by us" in before
    assert desk.pin(desk.release()).file == "unchanged"
    assert desk.policy.read_bytes() == before


def test_another_publisher_between_does_not_make_an_older_release_pass(desk: Desk) -> None:
    other = Identity.generate()
    desk.pin(desk.release())
    desk.pin(desk.release(other, time="2025-04-01T12:00:00Z", mrenclave=("ef" * 32,)), other)
    assert read_policy_file(desk.policy).mrenclave == ("ef" * 32,)
    desk.refuses(desk.release(time="2025-04-30T12:00:00Z", mrenclave=(OLD,)), match="older than")
    desk.refuses(desk.release(other, time="2025-03-01T12:00:00Z"), other, match="older than")
    assert desk.pin(desk.release()).added == (NEW,)


def test_a_release_of_the_future_is_refused_beyond_a_day(desk: Desk) -> None:
    day = 86_400
    desk.refuses(desk.release(), now=NOW - day - 1, match="the time is 2025-04-30T11:59:59Z")
    desk.pin(desk.release(), now=NOW - day)


def test_an_older_release_that_was_asked_for_does_not_let_the_next_one_pass(desk: Desk) -> None:
    first, between = (desk.release(time=f"2025-05-01T{hour}:00:00Z", mrenclave=(OLD,)) for hour in ("10", "11"))
    desk.pin(desk.release())
    desk.pin(first, older=True)
    assert read_policy_file(desk.policy).mrenclave == (OLD,)
    desk.refuses(between, match="older than 1.4.0")
    assert desk.pin(desk.release()).added == (NEW,)


def test_of_two_releases_of_one_second_the_one_that_was_asked_for_is_remembered(desk: Desk) -> None:
    desk.pin(desk.release())
    desk.pin(desk.release(mrenclave=(OLD,)), older=True)
    assert desk.pin(desk.release(mrenclave=(OLD,))).file == "unchanged"
    desk.refuses(desk.release(), match="of the same second")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", ["", "# SPDX-License-Identifier: none\n\n"])
def test_the_memory_stays_where_a_person_edits_around_it(desk: Desk, before: str, line_end: str) -> None:
    desk.pin(desk.release())
    desk.policy.write_bytes((before + desk.policy.read_text()).replace("\n", line_end).encode())
    desk.refuses(desk.release(time="2025-05-01T11:00:00Z"), match="older than")
    desk.pin(desk.release(time="2025-05-01T13:00:00Z"), now=NOW + 3600)
    desk.refuses(desk.release(), match="older than")
    assert desk.policy.read_text().count(", publisher ") == 1


def test_a_line_of_the_memory_that_is_damaged_is_not_passed_over(desk: Desk) -> None:
    desk.pin(desk.release())
    text = desk.policy.read_text()
    for damage in (("2025-05-01T", "2025-05-01 "), (", sha256 ", ", sha512 "), ("publisher ", "publisher x")):
        desk.policy.write_text(text.replace(*damage))
        assert "restore" in desk.refuses(desk.release(time="2025-05-01T11:00:00Z"), match="line 1 does not name")


def test_the_line_of_a_policy_of_before_still_counts(desk: Desk) -> None:
    who = hashlib.sha256(desk.publisher.public).hexdigest()
    rest = f'mrenclave = ["{OLD}"]\n'
    desk.policy.write_text(f"# release 1.3.0 of 2025-05-02, publisher {who}\n{rest}")
    desk.refuses(desk.release(), match=r"older than 1\.3\.0 of 2025-05-02")
    desk.policy.write_text(f"# release 1.3.0 of 2025-05-01, publisher {who}\n{rest}")
    desk.pin(desk.release())
    assert "1.3.0" not in desk.policy.read_text()


def test_what_to_do_where_a_policy_remembers_the_future(desk: Desk) -> None:
    who = hashlib.sha256(desk.publisher.public).hexdigest()
    desk.policy.write_text(f'# release 9 of 2099-01-01, publisher {who}\nmrenclave = ["{OLD}"]\n')
    assert "delete the policy's line" in desk.refuses(desk.release(), match="older than 9")


COMMENTED = f"""\
# SPDX-License-Identifier: none
tcb_status = ["UpToDate",  # of our own machines
  "SWHardeningNeeded"]   # see the note of 3 May ] "
  mrenclave   = [  # measured by us ]
  "{OLD}",         # "1.3"
]  # until 1.4
# SA-00615 is mended in the enclave
advisories = ["INTEL-SA-00615"]  # read on 3 May
root_ca_files = ["#mrenclave = 1.pem"]
min_isv_svn=3# least"""


def test_lines_that_a_release_does_not_change_stay(desk: Desk) -> None:
    desk.policy.write_text(COMMENTED)
    pinned = desk.pin(desk.release())
    lines = desk.policy.read_text().split("\n", 1)[1].splitlines()
    assert lines == [
        *COMMENTED.splitlines()[:3],
        f'mrenclave = ["{NEW}"]',
        *COMMENTED.splitlines()[6:-1],
        "min_isv_svn = 4",
        "min_tcb_evaluation_data_number = 17",
    ]
    assert pinned.dropped == ("# measured by us ]", '# "1.3"', "# until 1.4", "# least")
    assert desk.policy.read_text().startswith(f"# release 1.4.0 of {NOON}, publisher ")


@pytest.mark.parametrize(
    "text",
    [
        f'"mrenclave" = ["{OLD}"]\n',
        f"root_ca_files = ['''\nmrenclave = 1''']\nmrenclave = [\"{OLD}\"]\n",
        f"root_ca_files = ['''\nmrenclave = 1''']\n\"mrenclave\" = [\"{OLD}\"]\n",
        f"root_ca_files = ['''\nmin_isv_svn = 1''']\nmrenclave = [\"{OLD}\"]\n",
        f'mrenclave = ["""\\\n  {OLD}"""]\n',
        "mrenclave = [" + "# of our own build\n" * 40 + f'"""\\\n{OLD}"""]\n',
        f"mrenclave = ['''{OLD}''', \"\"\"{OLD}\\\n\"\"\"]\n",
    ],
)
def test_a_policy_whose_lines_are_not_its_keys_is_left_alone(desk: Desk, text: str) -> None:
    desk.policy.write_text(text)
    desk.refuses(desk.release(), match="cannot be put into the policy's text")


def test_no_policy_is_written_that_cannot_be_read(desk: Desk) -> None:
    desk.pin(desk.release())
    with desk.policy.open("a") as file:
        file.write("#" * (MAX_POLICY_BYTES - 2000))
    many = tuple(f"{number:064x}" for number in range(40))
    desk.refuses(desk.release(time="2025-05-01T12:00:01Z", mrenclave=many), match="cannot be put")


def test_a_policy_that_is_a_link_is_written_where_it_leads(desk: Desk) -> None:
    shared = desk.folder / "shared" / "policy.toml"
    shared.parent.mkdir()
    shared.write_text(f'mrenclave = ["{OLD}"]\n')
    desk.policy.symlink_to(shared)
    desk.pin(desk.release())
    assert desk.policy.is_symlink()
    assert read_policy_file(shared).mrenclave == (NEW,)


def test_a_refused_release_leaves_the_policy_alone(desk: Desk) -> None:
    desk.policy.write_text(f'mrenclave = ["{OLD}"]\n')
    for file in (desk.release(Identity.generate()), desk.folder / "none.json"):
        with pytest.raises(TrustformerError):
            desk.pin(file)
    assert desk.policy.read_text() == f'mrenclave = ["{OLD}"]\n'


def test_the_verb_prints_what_to_compare_in_full(desk: Desk, cli: Callable[..., Any]) -> None:
    public, release = desk.publisher.public, desk.release()
    (desk.folder / "key.hex").write_text(public.hex() + "\n")
    (desk.folder / "key.raw").write_bytes(public)
    known = hashlib.sha256(public).hexdigest()  # what a publisher gives out beside the file
    for key in (public.hex(), desk.folder / "key.hex", desk.folder / "key.raw", known):
        desk.policy.unlink(missing_ok=True)
        files = ("--policy", desk.policy, "--release", release)
        outcome = cli("pin", *files, "--publisher", key)
        assert outcome.code == 0
        for text in (NEW, public.hex(), hashlib.sha256(public).hexdigest(), NOON, "INTEL-SA-00615 (new)"):
            assert text in outcome.out
    bad = cli("pin", *files, "--publisher", "zz")
    assert (bad.code, type(bad.error)) == (2, ConfigError)
    assert cli("pin", *files, "--publisher", "00" * 32).code == 3


def test_a_fingerprint_stands_for_its_key_alone(desk: Desk, cli: Callable[..., Any]) -> None:
    other = Identity.generate()
    known = hashlib.sha256(desk.publisher.public).hexdigest()
    forged = json.loads(desk.release(by=other).read_bytes()) | {"publisher": desk.publisher.public.hex()}
    (desk.folder / "forged.json").write_text(json.dumps(forged))
    files = {desk.release(by=other): known, desk.folder / "forged.json": desk.publisher.public.hex()}
    for file, who in files.items():
        refused = cli("pin", "--policy", desk.policy, "--release", file, "--publisher", known)
        assert (refused.code, type(refused.error)) == (3, BadSignature)
        assert who in refused.error.expected
    assert not desk.policy.exists()


def test_a_key_file_may_have_a_name_as_long_as_a_key(
    desk: Desk, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.folder)
    Path("k" * 64).write_text(desk.publisher.public.hex())
    files = ("--policy", desk.policy, "--release", desk.release())
    assert cli("pin", *files, "--publisher", "k" * 64).code == 0


def test_the_verb_refuses_what_is_older_unless_it_is_asked_for(desk: Desk, cli: Callable[..., Any]) -> None:
    key, old = desk.publisher.public.hex(), desk.release(time="2025-05-01T11:00:00Z", mrenclave=(OLD,))
    files = {
        name: ("--policy", desk.policy, "--release", path, "--publisher", key)
        for name, path in (("new", desk.release()), ("old", old))
    }
    assert cli("pin", *files["new"]).code == 0
    refused = cli("pin", *files["old"])
    assert (refused.code, type(refused.error)) == (2, ConfigError)
    assert read_policy_file(desk.policy).mrenclave == (NEW,)
    assert cli("pin", *files["old"], "--older").code == 0
    assert read_policy_file(desk.policy).mrenclave == (OLD,)


def test_the_verb_says_what_became_of_the_file_and_which_comments_went(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    from trustformer.cli import main

    files = ["--policy", str(desk.policy), "--release", str(desk.release())]
    arguments = ["attest", "pin", *files, "--publisher", desk.publisher.public.hex()]
    desk.policy.write_text(f'mrenclave = ["{OLD}"]  # built by us, \x9b2J\n')
    for said in ("# built by us, ?2J", "policy.toml: unchanged"):
        assert main(arguments) == 0
        assert said in capsys.readouterr().err
    desk.policy.unlink()
    assert main(arguments) == 0
    assert "policy.toml: made" in capsys.readouterr().err

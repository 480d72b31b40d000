# SPDX-License-Identifier: Apache-2.0
"""What is said of a client's pairs: whose they are, in which languages, and where they were looked for."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from trustformer.attestation.simulated import BANNER
from trustformer.cli import main
from trustformer.cli.deploy import _until_told
from trustformer.data.intake import IntakeOptions, prepare_folder
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.config import DataConfig, load_config
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import PlainReporter
from trustformer.federation.store import ClientState, ClientStore
from trustformer.flower.member import Member
from trustformer.flower.placeholder import corpus_languages
from trustformer.flower.settings import HostConfig
from trustformer.flower.setup import Commands, init_federation
from trustformer.message import Update

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses
FILES = ("train", "valid", "test")


def _prepare(corpus: Path, out: Path, source: str, target: str) -> Path:
    inputs = [str(corpus / f"{name}.tsv") for name in FILES]
    prepare_folder(inputs, out, IntakeOptions(source=source, target=target, valid=0.2, test=0.2))
    return out


@pytest.fixture
def made(tmp_path: Path, corpus_files: Path, settings: list[str], mini_model: None) -> tuple[Path, Commands]:
    """A federation of prepared German-English text, as its report says, and what was said of it."""
    public = _prepare(corpus_files, tmp_path / "public", "de", "en")
    kept = [item for item in settings if not item.startswith("data.")]
    values = [*kept, "data.source=folder", f"data.train={public}", "data.limit=15", "enclave.release=acknowledged"]
    config = load_config(None, [*values, f"tokenizer.train_on={public / 'train.tsv.gz'}"])
    return tmp_path / "fed", init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig())


def _name_data(client: Path, name: str) -> None:
    path = client / "node.toml"
    path.write_text(re.sub("(?m)^data = .*", f'data = "{name}"', path.read_text("utf-8")), "utf-8")


def _first_line(client: Path, capsys: pytest.CaptureFixture[str]) -> str:
    directory = RunDirectory(client / "state")
    directory.make()
    Member(client, directory, PlainReporter())
    return "".join(capsys.readouterr())


def test_a_federation_says_its_languages_pairs_and_model(made: tuple[Path, Commands]) -> None:
    fed, commands = made
    words = r"de-en, 15 placeholder pairs, vocabulary \d+, [\d,]+ parameters, a new model \(tiny\)"
    assert re.fullmatch(words, commands.about)
    readme = (fed / "README.md").read_text("utf-8")
    assert "\n\n      trustformer prepare FILE --out DIR --source-language de --target-language en\n\n" in readme
    assert "Languages, `--valid` and `--test` must be the same at all clients." in readme


def test_the_command_prints_what_it_made(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for item in settings for part in ("--set", item)]
    assert main(["init-federation", str(tmp_path / "my fed"), *flags]) == 0
    said = capsys.readouterr().out
    assert "languages unknown, 30 placeholder pairs, vocabulary 150, " in said
    assert f"\n{BANNER}\n" in said
    for text in (said, (tmp_path / "my fed" / "README.md").read_text("utf-8")):
        typed = [shlex.split(line) for line in text.splitlines() if re.match(" +trustformer (serve|join)", line)]
        parts = {"serve": ["host"], "join": ["client-0", "client-1", "client-2"]}
        folders = [(verb, str(tmp_path / "my fed" / name)) for verb, names in parts.items() for name in names]
        assert typed == [["trustformer", verb, folder] for verb, folder in folders]


@pytest.mark.parametrize("verb", ["serve", "join"])
def test_after_an_interrupt_the_command_to_go_on_with_can_be_typed(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert _until_told(interrupt, verb, Path("my fed/it")) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert shlex.split(capsys.readouterr().err.splitlines()[-1]) == ["trustformer", verb, "my fed/it"]


def test_a_client_says_whether_it_has_the_placeholder_and_in_which_languages(
    made: tuple[Path, Commands], corpus_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = made[0] / "client-0"
    assert "client 0, 5 placeholder pairs, de-en; has taken part in none of " in _first_line(client, capsys)
    _prepare(corpus_files, client / "ours", "de-AT", "EN")
    _name_data(client, "ours")
    assert re.search(r"client 0, \d+ pairs, de-AT-EN; ", _first_line(client, capsys))
    (client / "ours" / "report.json").unlink()
    assert re.search(r"client 0, \d+ pairs; ", _first_line(client, capsys))
    (client / "placeholder.json").unlink()  # as of a federation that was made before there was such a file
    assert re.search(r"client 0, \d+ pairs; ", _first_line(client, capsys))


def test_a_client_says_as_it_starts_that_quotes_are_simulated_and_where_its_training_stands(
    made: tuple[Path, Commands], capsys: pytest.CaptureFixture[str]
) -> None:
    client = made[0] / "client-0"
    assert f"{BANNER}\nclient 0, " in _first_line(client, capsys)
    update = Update(1, bytes(32), 5, bytes(32), b"body")
    ClientStore(client / "state").save(ClientState({}, {}, trained=1, pending=update))
    said = "; adopted round 0 of 3; round 1 is trained and its update made, not yet known to be combined\n"
    assert said in _first_line(client, capsys)
    for trained, then in ((2, ""), (1, ", took part up to round 1")):
        ClientStore(client / "state").save(ClientState({}, {}, round=2, trained=trained))
        assert f"; adopted round 2 of 3{then}\n" in _first_line(client, capsys)


@pytest.mark.parametrize(("source", "target"), [("en", "de"), ("ru", "en")])
def test_a_folder_in_other_languages_than_the_federation_is_refused(
    made: tuple[Path, Commands], corpus_files: Path, capsys: pytest.CaptureFixture[str], source: str, target: str
) -> None:
    client = made[0] / "client-1"
    _prepare(corpus_files, client / "ours", source, target)
    _name_data(client, "ours")
    with pytest.raises(ConfigError, match=f"says {source}-{target}, and this federation translates de-en") as refused:
        _first_line(client, capsys)
    assert "--source-language de --target-language en" in refused.value.hint


def test_a_data_folder_that_is_not_there_is_named_with_its_key_and_file(
    made: tuple[Path, Commands], capsys: pytest.CaptureFixture[str]
) -> None:
    client = made[0] / "client-2"
    _name_data(client, "outs")
    with pytest.raises(DataError, match=f"^data in {client}/node.toml: {client}/outs is not a folder"):
        _first_line(client, capsys)


def test_languages_of_a_corpus_are_known_where_something_says_them(tmp_path: Path) -> None:
    assert corpus_languages(DataConfig(source="tmx")) == ["ru", "en"]
    assert corpus_languages(DataConfig(source="tsv")) == []  # the defaults: nobody said so
    assert corpus_languages(DataConfig(source="tsv", source_language="de")) == ["de", "en"]
    for report in (["de"], None, 3, {}):
        (tmp_path / "report.json").write_text(json.dumps({"languages": report}), "utf-8")
        assert corpus_languages(DataConfig(source="folder", train=str(tmp_path))) == []

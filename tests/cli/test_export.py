# SPDX-License-Identifier: Apache-2.0
"""`trustformer export`: a folder that transformers loads without us and that writes the same text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from cli_kit import Cli

from trustformer.errors import TrustformerError
from trustformer.evaluation.translation import translate
from trustformer.experiment.config import load_config
from trustformer.experiment.saved import load_saved
from trustformer.methods import PRIVATE, MethodConfig
from trustformer.privacy.stated import stated_epsilon
from trustformer.reports import export as export_module
from trustformer.reports.card import BEAMS
from trustformer.reports.export import export
from trustformer.reports.task_tables import METRICS

CARD_CODE = """
import sys
import warnings
warnings.filterwarnings("ignore")  # sacremoses is recommended and not needed
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
lines = sys.stdin.read().splitlines()
batch = tokenizer(lines, return_tensors="pt", padding=True, truncation=True)
for text in tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True):
    print(text)
assert not [name for name in sys.modules if name.startswith("trustformer")]
"""


@pytest.fixture(scope="module")
def trained(tiny_run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt enough to end its sentences."""
    out = tmp_path_factory.mktemp("trained") / "run"
    values = ("method.name=fedavg", "rounds=1", "train.local_epochs=60", "train.warmup_steps=60", "model.init_std=0.1")
    tiny_run(out, *values, "train.batch_tokens=128")
    return out


@pytest.mark.parametrize("client", [None, "1"])
def test_without_us_it_writes_the_same_text(cli: Cli, trained: Path, tmp_path: Path, client: str | None) -> None:
    folder = tmp_path / "model"
    who = ["--client", client] if client else []
    code, _, err = cli("export", trained, "--to", folder, *who)
    assert (code, err) == (0, "")
    lines = (trained / "translations" / "source.tsv").read_text("utf-8").splitlines()
    sources = [line.split("\t")[0] for line in lines]
    _, ours, _ = cli("translate", trained, *who, "--beams", BEAMS, stdin="\n".join(sources).encode())
    done = _without_us(CARD_CODE, folder, "\n".join(sources))
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == [line.strip() for line in ours.splitlines()]
    assert len(set(ours.splitlines())) > 1


EXPORTS = [
    # model.task, model.architecture, model.lora_rank
    *(("translation", "marian", 0), ("translation", "t5", 0), ("translation", "mbart", 0)),
    *(("causal-lm", "gpt2", 0), ("causal-lm", "llama", 0)),
    *(("masked-lm", "bert", 0), ("masked-lm", "distilbert", 0)),
    *(("classification", "bert", 0), ("classification", "distilbert", 0)),
    *(("translation", "t5", 4), ("causal-lm", "gpt2", 4), ("classification", "bert", 4)),
]

WITHOUT_US = """
import json
import warnings
from pathlib import Path
warnings.filterwarnings("ignore")  # sacremoses is recommended and not needed
import torch
import transformers
from transformers import AutoTokenizer, pipeline

PIPELINES = {"causal-lm": "text-generation", "masked-lm": "fill-mask", "classification": "text-classification"}
TEXT = {"masked-lm": "The <mask> saw the patient."}
found = {}
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.name.startswith("export-")):
    task = folder.name.split("_")[1]
    text = TEXT.get(task, "The doctor saw the patient.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    batch = tokenizer([text], return_tensors="pt")
    if task == "translation":
        said = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)[0].strip()
        batch["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    else:
        said = len(pipeline(PIPELINES[task], model=str(folder))(text))
    with torch.no_grad():
        logits = model(**batch).logits.flatten()[:40].tolist()
    found[folder.name] = {"ids": batch["input_ids"].tolist(), "said": said, "logits": logits}
assert not [name for name in sys.modules if name.split(".")[0] in ("trustformer", "peft")]
print(json.dumps(found))
"""


def test_every_family_is_exported_for_a_process_without_us(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """With adapters merged, in a pipeline where transformers has one for the task; logits are those of our own copy."""
    runs: dict[str, Path] = {}
    for task, architecture, rank in EXPORTS:
        if rank and not find_spec("peft"):
            continue
        name = f"export-{architecture}{rank}_{task}"
        runs[name] = tmp_path / name.replace("export", "run")
        values = (f"model.task={task}", f"model.architecture={architecture}", f"model.lora_rank={rank}")
        result = tiny_run(runs[name], *values, "method.name=fedavg", "rounds=1", "model.max_length=48")
        export(runs[name], tmp_path / name)
        card = (tmp_path / name / "README.md").read_text("utf-8")
        headline = result["metrics"][0]
        assert METRICS[headline].show(result[f"{headline}_common"]) in card
        assert ("adapters of rank 4" in card) == bool(rank)
        assert (tmp_path / name / "generation_config.json").exists() == (task in ("translation", "causal-lm"))
    done = _without_us(WITHOUT_US, tmp_path, "")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == sorted(runs)
    for name, theirs in found.items():
        model, tokenizer = load_saved(runs[name])
        inputs = {"input_ids": torch.tensor(theirs["ids"])}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
            ours = translate(model, tokenizer, ["The doctor saw the patient."], beams=4)
            assert tokenizer.encode(["The doctor saw the patient."], 48) == theirs["ids"]
            assert theirs["said"].startswith(ours[0][:20])  # untrained models ramble on to different limits
        else:
            assert theirs["said"] == (5 if "masked" in name else 1)
        with torch.no_grad():
            logits = model.eval()(**inputs).logits.flatten()[:40].tolist()
        assert logits == pytest.approx(theirs["logits"], abs=1e-5), name


@pytest.mark.parametrize("variant", get_args(get_type_hints(MethodConfig)["variant"]))
def test_every_variant_has_a_card(tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, variant: str) -> None:
    tiny_run(tmp_path / "run", f"method.variant={variant}", "method.ratio=0.5", "rounds=1")
    export(tmp_path / "run", tmp_path / "model")
    assert "Each client sent, sealed" in (tmp_path / "model" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "title", "said"),
    [
        (
            "local",
            "# Client 0's own model, trained alone\n",
            "discloses of client 0's text, of which the run sent nothing",
        ),
        ("centralized", "# Model of pooled text\n", "all training text was in one place"),
    ],
)
def test_the_card_of_what_was_not_federated_says_so(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, name: str, title: str, said: str
) -> None:
    tiny_run(tmp_path / "run", f"method.name={name}", "rounds=1")
    export(tmp_path / "run", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert title in card
    assert said in card
    assert "federated run" not in card
    assert "federated-learning" not in card
    assert "without putting" not in card


def test_pooled_text_is_no_clients_own_whoever_is_asked_for(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    tiny_run(tmp_path / "run", "method.name=centralized", "rounds=1")
    for name, client in (("pooled", None), ("asked", "0")):
        export(tmp_path / "run", tmp_path / name, client)
    pooled, asked = ((tmp_path / name / "README.md").read_text("utf-8") for name in ("pooled", "asked"))
    assert asked == pooled


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("task", "side", "declared"),
    [("translation", "source", ("de", "en")), ("classification", "source", ("de",)), ("causal-lm", "target", ("en",))],
)
def test_languages_that_a_prepared_folder_states_are_on_the_card(
    tmp_path: Path, task: str, side: str, declared: tuple[str, ...], several: bool
) -> None:
    (tmp_path / "report.json").write_text('{"languages": ["de", "en"]}', "utf-8")
    where = [f"data.train={tmp_path}"]
    if several:
        where = [f'clients.folders=["{tmp_path}", "{tmp_path}"]', "clients.count=2", f"tokenizer.train_on={tmp_path}/x"]
    where.append("data.source=folder")
    config = load_config(None, [f"model.task={task}", f"data.side={side}", *where])
    assert export_module._languages(config) == declared


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (["data.source=jsonl"], ()),
        (["data.source=hf", "data.name=pairs", "data.source_language=no"], ("no",)),
        (["data.source=jsonl", "data.source_language=no", "data.target_language=de"], ("no", "de")),
        (["data.source=jsonl", "model.task=causal-lm"], ()),
        (["data.source=tmx"], ("ru", "en")),
        (["data.source=toy"], ("ru", "en")),
        (["data.source=tsv"], ()),
    ],
)
def test_languages_that_nobody_declared_are_not_on_the_card(values: list[str], declared: tuple[str, ...]) -> None:
    """Rows of jsonl and hf with the keys `source` and `target` need no languages in the config."""
    files = [f"data.{name}=x" for name in ("train", "valid", "test")] if "data.source=toy" not in values else []
    config = load_config(None, [*files, *values])
    assert export_module._languages(config) == declared


@pytest.mark.parametrize("name", PRIVATE)
def test_the_card_of_a_private_run_states_its_guarantee_and_what_it_leaves_out(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, name: str
) -> None:
    pytest.importorskip("opacus", reason="needs the extra dp")
    private = ("privacy.mechanism=enclave", "privacy.epsilon=8", "privacy.delta=1e-3")
    result = tiny_run(tmp_path / "run", f"method.name={name}", *private, "rounds=1")
    export(tmp_path / "run", tmp_path / "common")
    export(tmp_path / "run", tmp_path / "own", client="1")
    common, own = ((tmp_path / who / "README.md").read_text("utf-8") for who in ("common", "own"))
    assert f"Differentially private: epsilon {stated_epsilon(result['epsilon'])}, " in common
    assert result["signature"] not in common
    assert "delta 0.001, for one client" in common
    assert "does not cover a client's own model" in own
    assert "Differentially private" not in own
    assert "not scored" in own


def test_records_bound_a_clients_own_model_too(tiny_run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("opacus", reason="needs the extra dp")
    private = ("privacy.mechanism=records", "privacy.epsilon=8", "privacy.delta=1e-3")
    tiny_run(tmp_path / "run", "method.name=local", *private, "rounds=1")
    export(tmp_path / "run", tmp_path / "own", client="1")
    card = (tmp_path / "own" / "README.md").read_text("utf-8")
    assert "Nothing was exchanged" in card
    assert "for one pair" in card


def test_a_report_refuses_a_run_that_does_not_translate(
    cli: Cli, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    tiny_run(tmp_path / "run", "model.task=causal-lm", "method.name=fedavg", "rounds=1", "model.max_length=48")
    code, _, err = cli("report", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 2
    assert "is a run of causal-lm" in err
    assert not (tmp_path / "out").exists()


def _without_us(code: str, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {_paths()!r}\n{code}", str(folder)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"},
    )


def _paths() -> list[str]:
    """Where python looks for packages, without the place of this one."""
    import trustformer

    own = str(Path(trustformer.__file__).parents[1])
    return [path for path in sys.path if path and path != own]


def test_the_card_says_what_it_is(cli: Cli, finished: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "result.json").read_text("utf-8"))
    for name, arguments in (("common", []), ("client", ["--client", "2"])):
        assert cli("export", finished, "--to", tmp_path / name, *arguments).code == 0
    common, client = ((tmp_path / name / "README.md").read_text("utf-8") for name in ("common", "client"))
    assert common.startswith("---\nlibrary_name: transformers\n")
    for part in (
        f"\n\nRun: `{result['signature']}`\n",
        result["sacrebleu_signature"],
        f"{result['bytes_up_per_client_round']:,.0f}, sealed",
        "| BLEU | chrF | NLL |",
        f"| {result['bleu_common']:.1f} | {result['chrf_common']:.1f} | {result['nll_common']:.3f} |",
        "attestation was simulated",
        "No differential privacy",
        result["data"],
    ):
        assert part in common
    assert f"| {result['bleu_per_client'][2]:.1f} | {result['chrf_per_client'][2]:.1f} |" in client
    assert "holds what client 2 never sent" in client
    assert "never sent" not in common
    assert str(finished) not in common
    files = {path.name for path in (tmp_path / "common").iterdir()}
    assert files == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"),
    }
    modes = {path.stat().st_mode for path in (tmp_path / "common").iterdir()}
    assert len(modes) == 1, "who may read the card may read the weights"


def test_nothing_is_overwritten(cli: Cli, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("mine")
    code, _, err = cli("export", finished, "--to", tmp_path / "there")
    assert code == 2
    assert "already exists" in err
    assert [path.name for path in tmp_path.rglob("*.*")] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "part"), [(["--client", "9"], "no client '9'"), (["--client", "../0"], "no client")]
)
def test_a_client_that_is_not_there(cli: Cli, finished: Path, tmp_path: Path, arguments: list[str], part: str) -> None:
    code, _, err = cli("export", finished, "--to", tmp_path / "x", *arguments)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert part in err


def test_what_is_no_run_is_refused(cli: Cli, finished: Path, tmp_path: Path) -> None:
    for path in (tmp_path, finished / "model"):
        code, _, err = cli("export", path, "--to", tmp_path / "x")
        assert code == 2
        assert "not a run directory" in err


def test_a_failure_on_the_way_leaves_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = export_module.save_model

    def full_disk(model: Any, folder: Path) -> None:
        save(model, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "save_model", full_disk)
    with pytest.raises(TrustformerError, match="No space left"):
        export(finished, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""Every family of models trains, exchanges and scores like the first one; folders in the hub's format are continued."""

from __future__ import annotations

import copy
import gzip
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, MBartConfig, MBartTokenizer, T5Config

from trustformer.attacks.probe import gradient
from trustformer.codec.weights import Weights
from trustformer.data.corpus import Pair, read_lines
from trustformer.data.folder import write_folder
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.marian import stored_tokenizer
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError, DataError
from trustformer.evaluation.tasks import macro_f1
from trustformer.evaluation.translation import EvaluationConfig, translate
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import Prepared, prepare
from trustformer.experiment.saved import load_saved
from trustformer.federation.store import ClientStore
from trustformer.models.families import load_any, make_model
from trustformer.models.seq2seq import ModelConfig, get_weights, set_weights
from trustformer.reports.export import export
from trustformer.training import LocalTrainer, OptimizerState, TrainConfig

Run = Callable[..., dict[str, Any]]
Settings = list[str]

FAMILIES = [
    ("translation", "marian"),
    ("translation", "t5"),
    ("translation", "mbart"),
    ("causal-lm", "gpt2"),
    ("causal-lm", "llama"),
    ("masked-lm", "bert"),
    ("masked-lm", "distilbert"),
    ("classification", "bert"),
    ("classification", "distilbert"),
]


def of(task: str, architecture: str, *more: str) -> list[str]:
    return [f"model.task={task}", f"model.architecture={architecture}", "model.max_length=48", *more]


def weights_of(run: Path) -> dict[str, Weights]:
    states = {path.name: ClientStore(path).load() for path in sorted((run / "clients").iterdir())}
    return {name: state.weights for name, state in states.items() if state is not None}


@pytest.mark.parametrize(("task", "architecture"), FAMILIES)
def test_the_identity_coder_is_federated_averaging(
    tiny_run: Run, settings: Settings, tmp_path: Path, task: str, architecture: str
) -> None:
    """One round with dense fp32 layouts ends at the mean of what the clients trained alone, weighted by examples."""
    values = [*of(task, architecture), "rounds=1", "clients.split=dirichlet", "clients.alpha=2"]
    alone = tiny_run(tmp_path / "local", *values, "method.name=local")
    result = tiny_run(tmp_path / "fedavg", *values, "method.name=fedavg")
    examples = prepare(load_config(None, [*settings, *values])).clients
    shares = {name: len(part) / sum(map(len, examples.values())) for name, part in examples.items()}
    trained = weights_of(tmp_path / "local")
    assert len(set(shares.values())) > 1
    for after in weights_of(tmp_path / "fedavg").values():
        for name, values_of in after.items():
            mean = sum(share * trained[client][name].astype(np.float64) for client, share in shares.items())
            np.testing.assert_allclose(values_of, mean, rtol=0, atol=1e-6)
    assert result["task"] == task
    for metric in result["metrics"]:
        assert len(result[f"{metric}_per_client"]) == 3
        assert np.isfinite(result[metric])
    assert len(set(alone[f"{alone['metrics'][-1]}_per_client"])) > 1


@pytest.mark.parametrize(("task", "architecture"), [("causal-lm", "gpt2"), ("classification", "bert")])
def test_centroids_shrink_every_family_and_runs_repeat(
    tiny_run: Run, tmp_path: Path, task: str, architecture: str
) -> None:
    values = of(task, architecture, "rounds=1")
    one, other = (tiny_run(tmp_path / name, *values) for name in ("one", "other"))
    assert one["weights_digest"] == other["weights_digest"]
    assert one["compression_up"] > 3
    assert one["common_digest"] is not None
    again = stored_tokenizer(tmp_path / "one" / "tokenizer.model")
    assert again.digest == stored_tokenizer(tmp_path / "other" / "tokenizer.model").digest


def test_training_lowers_the_loss_of_every_task(tiny_run: Run, tmp_path: Path) -> None:
    for task in ("causal-lm", "masked-lm", "classification"):
        values = of(task, "auto", "method.name=centralized", "train.learning_rate=1e-3", "train.warmup_steps=5")
        few = tiny_run(tmp_path / f"{task}-1", *values, "rounds=1", "train.batch_tokens=64")
        many = tiny_run(tmp_path / f"{task}-2", *values, "rounds=1", "train.batch_tokens=64", "train.local_epochs=10")
        losses = [json.loads((tmp_path / f"{task}-{n}" / "rounds.jsonl").read_text("utf-8"))["loss"] for n in (1, 2)]
        assert losses[1] < losses[0] - 0.01, task
        assert many["nll"] != few["nll"]


@pytest.fixture
def prepared(mini_model: None, settings: Settings) -> Callable[..., Prepared]:
    return lambda *values: prepare(load_config(None, [*settings, *values]))


@pytest.mark.parametrize(("task", "architecture"), FAMILIES)
def test_every_family_is_continued_from_a_folder(
    prepared: Callable[..., Prepared], tmp_path: Path, task: str, architecture: str
) -> None:
    """In the hub's format, in half precision and in several files: the same weights to rounding, tied ones once."""
    made = prepared(*of(task, architecture))
    copy.deepcopy(made.model).half().save_pretrained(tmp_path, max_shard_size="20KB")
    made.tokenizer.save(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = prepared(*of(task, "auto", f"model.preset={tmp_path}"))
    assert list(again.start) == list(made.start)
    for name, values in again.start.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, made.start[name], rtol=1e-3, atol=1e-4)
    assert not any("lm_head.weight" in name or name.endswith("decoder.weight") for name in made.start)
    assert again.task.examples(again.corpus.test, 48) == made.task.examples(made.corpus.test, 48)


UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
DROPPED: dict[str, Any] = {"encoder_layerdrop": 1.0, "decoder_layerdrop": 1.0}


@pytest.mark.parametrize(
    ("task", "architecture", "changed", "unused"),
    [
        ("translation", "marian", UNTIED, ["model.shared.weight"]),
        ("translation", "marian", DROPPED, []),
        ("translation", "mbart", UNTIED, ["model.shared.weight"]),
        ("translation", "mbart", DROPPED, []),
        ("masked-lm", "bert", UNTIED, ["cls.predictions.bias"]),
    ],
)
def test_a_folder_with_a_tensor_that_no_step_uses_is_trained_round_after_round(
    prepared: Callable[..., Prepared],
    tmp_path: Path,
    task: str,
    architecture: str,
    changed: dict[str, Any],
    unused: list[str],
) -> None:
    made = prepared(*of(task, architecture))
    made.model.config.update(changed)
    type(made.model)(made.model.config).save_pretrained(tmp_path)
    made.tokenizer.save(tmp_path)
    again = prepared(*of(task, "auto", f"model.preset={tmp_path}"))
    trainer = LocalTrainer(again.model, TrainConfig(batch_tokens=64), objective=again.task.objective)
    weights, state = again.start, OptimizerState()
    for number in (1, 2):
        result = trainer.train(weights, state, again.clients["0"], seed=(1, 0, number))
        assert [name for name, values in result.weights.items() if np.array_equal(values, weights[name])] == unused
        weights, state = result.weights, result.optimizer
    assert [name for name, values in state.second.items() if not values.any()] == unused
    if task == "translation":
        told = gradient(again.model, weights, again.clients["0"][:1], 0.0)
        assert [name for name, values in told.items() if not values.any()] == unused


def test_special_tokens_written_in_a_text_are_text(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    text, plain = "Price <s>10</s> 8 <pad> euro <mask>", "Price 10, 8 euro"
    made = prepared(*of("masked-lm", "bert"))
    made.tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in (made.tokenizer, HubTokenizer.of_folder(tmp_path)):
        assert isinstance(tokenizer, HubTokenizer)
        (framed,), (bare,) = tokenizer.encode([text], 99), tokenizer.encode_plain([text], 99)
        assert framed == [tokenizer.start_id, *bare, tokenizer.eos_id]
        assert not set(bare) & set(theirs.all_special_ids)
        assert tokenizer.decode([framed]) == [text]
        assert tokenizer.encode([plain], 99) == [theirs(plain)["input_ids"]]


def test_a_diverged_language_model_is_scored_all_the_same(prepared: Callable[..., Prepared]) -> None:
    made = prepared(*of("causal-lm", "gpt2"))
    set_weights(made.model, {name: 1e5 * values for name, values in made.start.items()})
    scores = made.task.evaluate(made.model, made.corpus.test, EvaluationConfig(), 48, lambda done, total: None).scores
    assert scores["nll"] > 1000
    assert scores["perplexity"] == pytest.approx(math.exp(300))


@pytest.fixture
def bert_folder(prepared: Callable[..., Prepared], tmp_path: Path) -> Path:
    """A model whose tokenizer leaves out invisible characters, as BERT's does."""
    made = prepared(*of("masked-lm", "bert"))
    folder = tmp_path / "bert"
    made.model.save_pretrained(folder)
    made.tokenizer.save(folder)
    tree = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tree["normalizer"] = {
        **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
        **{"strip_accents": None, "lowercase": False},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tree), "utf-8")
    return folder


def invisible(folder: Path, splits: dict[str, list[str]]) -> list[str]:
    """`--set` values of a corpus with these lines, invisible ones among them."""
    for split, lines in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    files = [f"data.{split}={folder / split}.txt" for split in splits]
    return ["data.source=lines", *files, *(f"data.{split}_domains=" for split in splits), "data.limit=0"]


def test_texts_without_a_token_are_dropped_before_the_corpus_is_divided(
    prepared: Callable[..., Prepared], tiny_run: Run, bert_folder: Path, tmp_path: Path
) -> None:
    seen = [f"a text of number {number}" for number in range(9)]
    train = ["\u200b", *seen[:4], "\u00ad\u200b", *seen[4:], "\u200b"]
    lines = {"train": train, "valid": ["one", "\u200b"], "test": ["\u00ad", "two", "three"]}
    values = [*of("masked-lm", "auto", f"model.preset={bert_folder}"), *invisible(tmp_path, lines)]
    made = prepared(*values)
    assert [pair.target for pair in made.corpus.train] == seen
    told = "texts without a token dropped: 3 of train, 1 of valid, 1 of test"
    assert told in made.corpus.warnings[-1]
    clean = prepared(*values, *invisible(tmp_path, {"train": seen, "valid": ["one"], "test": ["two", "three"]}))
    assert made.clients == clean.clients
    assert made.digest == clean.digest
    invisible(tmp_path, lines)
    result = tiny_run(tmp_path / "run", *values, "rounds=1")
    assert result["test_pairs"] == 2


def test_dropped_texts_are_taken_from_their_owner(
    prepared: Callable[..., Prepared], bert_folder: Path, tmp_path: Path
) -> None:
    folders = []
    for client in range(2):
        texts = ["\u200b", *(f"text {number} of {client}" for number in range(3))]
        own = tmp_path / f"client-{client}"
        write_folder(own, {split: [Pair(text, text) for text in texts] for split in ("train", "valid", "test")}, {})
        folders.append(str(own))
    values = of("masked-lm", "auto", f"model.preset={bert_folder}", "data.source=folder")
    empty = [f"data.{name}=" for name in ("train", "valid", "test")]
    empty += [f"data.{name}_domains=" for name in ("train", "valid", "test")]
    values += [*empty, f"clients.folders={json.dumps(folders)}", "data.limit=0", "clients.min_clients=1"]
    made = prepared(*values)
    assert made.corpus.owners == ((3, 3, 3), (3, 3, 3))
    for client, examples in made.clients.items():
        texts = made.tokenizer.decode([example.source for example in examples])
        assert texts == [f"text {number} of {client}" for number in range(3)]
    (tmp_path / "client-1" / "train.tsv.gz").write_bytes(gzip.compress("\u200b\t\u200b\n".encode()))
    with pytest.raises(DataError, match="no token in the training texts of client 1"):
        prepared(*values)


def test_a_split_without_any_token_is_said(
    prepared: Callable[..., Prepared], bert_folder: Path, tmp_path: Path
) -> None:
    lines = {"train": ["one", "two", "three"], "valid": ["four"], "test": ["\u200b"]}
    values = [*of("masked-lm", "auto", f"model.preset={bert_folder}"), *invisible(tmp_path, lines)]
    with pytest.raises(DataError, match="no token in the test split"):
        prepared(*values)


def test_tied_weights_travel_once_and_gpt2_has_a_row_for_each_output(prepared: Callable[..., Prepared]) -> None:
    made = prepared(*of("causal-lm", "gpt2"))
    assert not any("lm_head" in name for name in made.start)
    width = made.model.config.n_embd
    assert made.model.transformer.h[0].attn.c_attn.weight.shape == (width, 3 * width)
    name = "transformer.h.0.attn.c_attn.weight"
    assert made.start[name].shape == (3 * width, width)
    assert made.start[name].flags.c_contiguous
    doubled = {key: 2 * values for key, values in made.start.items()}
    set_weights(made.model, doubled)
    for key, values in get_weights(made.model).items():
        assert np.array_equal(values, doubled[key])


def test_frozen_layers_stay_and_do_not_travel(tiny_run: Run, prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    freeze = 'model.freeze=["transformer.wte*", "*.ln_1.*"]'
    values = of("causal-lm", "gpt2", "rounds=1", "method.name=fedavg")
    tiny_run(tmp_path / "run", *values, freeze)
    (trained, *_), start = weights_of(tmp_path / "run").values(), prepared(*values)
    frozen = start.start.keys() - trained.keys()
    assert "transformer.wte.weight" in frozen
    assert len(frozen) == 1 + 2 * start.model.config.n_layer
    model, _ = load_saved(tmp_path / "run", "1")
    assert np.array_equal(model.transformer.wte.weight.detach().numpy(), start.start["transformer.wte.weight"])
    assert prepared(*values, freeze).digest != start.digest


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (of("causal-lm", "bert"), "does no causal-lm"),
        (of("causal-lm", "gpt2", 'model.freeze=["nothing*"]'), "matches no tensor"),
        (of("causal-lm", "gpt2", 'model.freeze=["*"]'), "leaves nothing"),
        (of("causal-lm", "llama", "model.dropout=0.3"), "model.dropout is 0.3, and llama has none"),
        (of("causal-lm", "gpt2", "tokenizer.file=some.model"), "tokenizer.file is of translation"),
        (of("classification", "bert", "data.test_domains="), "data.test_domains"),
        (of("translation", "marian", "data.source=lines"), "no translations"),
    ],
)
def test_what_does_not_go_together_is_said(prepared: Callable[..., Prepared], values: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        prepared(*values)


def test_single_texts_with_labels_are_a_corpus_too(
    prepared: Callable[..., Prepared], corpus_files: Path, tmp_path: Path
) -> None:
    files = {}
    for split in ("train", "valid", "test"):
        lines = (corpus_files / f"{split}.tsv").read_text("utf-8").splitlines()
        files[split] = tmp_path / f"{split}.txt"
        files[split].write_text("".join(line.split("\t")[1] + "\n" for line in lines), "utf-8")
    values = [f"data.{split}={path}" for split, path in files.items()]
    made = prepared(*of("classification", "bert"), "data.source=lines", *values)
    by_pairs = prepared(*of("classification", "bert"))
    assert made.clients == by_pairs.clients
    files["train"].write_text("one\n\ntwo\n", "utf-8")
    pairs, warnings = read_lines(files["train"])
    assert [pair.target for pair in pairs] == ["one", "two"]
    assert "line 2" in warnings[0]


def test_a_label_that_training_has_not_ends_a_run_before_it_trains(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("strange\n" * 6)
    values = [*of("classification", "bert"), f"data.test_domains={tmp_path / 'labels'}"]
    with pytest.raises(DataError, match="'strange' is none of the training text's") as caught:
        tiny_run(tmp_path / "run", *values)
    assert "'domain' of jsonl" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_macro_f1_by_hand() -> None:
    """Label 0: 2 hits, 3 there, 2 chosen; label 1: 1 hit, 1 there, 2 chosen; label 2 does not occur."""
    assert macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert macro_f1(np.array([0, 0]), np.array([2, 0])) == pytest.approx(2 / 3)


SENTENCES = [f"Пример номер {i}, example number {i * 7}." for i in range(60)]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of GPT-2 in half precision and in several files, whose tokenizer has no pad token."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = HubTokenizer.train_bpe(SENTENCES, 300, "<s> $A")
    tokenizer.save(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=48))
    model.half().save_pretrained(folder, max_shard_size="20KB")
    return folder


def test_a_folder_in_half_precision_and_several_files_is_continued(gpt2: Path, tiny_run: Run, tmp_path: Path) -> None:
    assert len(list(gpt2.glob("*.safetensors"))) > 1
    values = of("causal-lm", "auto", f"model.preset={gpt2}", "method.name=fedavg", "rounds=1")
    result = tiny_run(tmp_path / "run", *values)
    first, second, _ = weights_of(tmp_path / "run").values()
    stored = GPT2LMHeadModel.from_pretrained(gpt2)
    for name, values_of in first.items():
        assert values_of.dtype == np.float32
        np.testing.assert_allclose(values_of, second[name], rtol=0, atol=1e-6)
    assert sum(values_of.size for values_of in first.values()) == stored.num_parameters() == result["parameters"]
    one = stored.transformer.h[0].mlp.c_fc.weight.detach().float().numpy().T
    assert 0 < np.abs(first["transformer.h.0.mlp.c_fc.weight"] - one).max() < 0.1


def test_folders_that_do_not_fit_are_refused(gpt2: Path, prepared: Callable[..., Prepared]) -> None:
    for task, part in (("masked-lm", "does no masked-lm"), ("translation", "does no translation")):
        with pytest.raises(ConfigError, match=part):
            prepared(*of(task, "auto", f"model.preset={gpt2}"))
    with pytest.raises(ConfigError, match="positions for 48"):
        prepared(*of("causal-lm", "auto", f"model.preset={gpt2}"), "model.max_length=64")
    tokenizer = HubTokenizer.of_folder(gpt2)
    assert tokenizer.encode([], 9) == tokenizer.encode_plain([], 9) == []
    assert tokenizer.pad_id == tokenizer.eos_id
    with pytest.raises(ConfigError, match="tokenizer"):
        HubTokenizer(tokenizer.model[:-9])


def test_a_folder_is_told_apart_before_its_weights_are_read(gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_type 'gpt2' does no translation here"):
        load_saved(gpt2)
    shutil.copytree(gpt2, tmp_path / "wide")
    path = tmp_path / "wide" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"n_embd": 32}))
    config = ModelConfig(preset=str(tmp_path / "wide"), task="causal-lm", max_length=48)
    with pytest.raises(
        ConfigError, match=r"'transformer\.h\.0\.attn\.c_attn\.bias' has the shape \(48,\), not \(96,\)"
    ):
        make_model(config, HubTokenizer.of_folder(gpt2), (), 1)


def test_training_text_that_fills_the_model_is_counted_and_tokenised_once(prepared: Callable[..., Prepared]) -> None:
    """Of 30 pairs; the examples that were counted are those that clients train on."""
    made = prepared("model.max_length=8")
    examples = made.task.examples(made.corpus.train, 8)
    full = sum(8 in (len(example.source), len(example.target)) for example in examples)
    assert 1 < full <= 30
    told = f"{full} of 30 training pairs have 8 tokens (model.max_length) or more"
    assert sum(warning.startswith(told) for warning in made.corpus.warnings) == 1
    assert {id(one) for held in made.clients.values() for one in held} == {id(one) for one in examples}
    assert not any("model.max_length" in warning for warning in prepared("model.max_length=1024").corpus.warnings)


def test_training_text_with_characters_that_the_vocabulary_lacks_is_counted(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    public = tmp_path / "public.txt"
    public.write_text("".join(f"{word} the quick brown fox jumps over a lazy dog\n" for word in map(str, range(300))))
    lacking = "30 of 30 training pairs have characters that the vocabulary lacks"
    assert any(warning.startswith(lacking) for warning in prepared(f"tokenizer.train_on={public}").corpus.warnings)
    for task in ("causal-lm", "masked-lm"):  # their vocabularies are of bytes
        made = prepared(f"tokenizer.train_on={public}", f"model.task={task}")
        assert not any("vocabulary lacks" in warning for warning in made.corpus.warnings)


def encoder_decoder(folder: Path, kind: str) -> Path:
    """A small T5 or mBART with its tokenizer, as transformers saves them."""
    small = {"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "max_position_embeddings": 48}
    if kind == "t5":
        tokenizer = HubTokenizer.train_bpe(SENTENCES, 300, "$A </s>")
        tokenizer.save(folder)
        config: Any = T5Config(
            vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=tokenizer.pad_id,
            eos_token_id=tokenizer.eos_id, decoder_start_token_id=tokenizer.pad_id,
        )  # fmt: skip
    else:
        letters = sorted(set("".join(SENTENCES)) - {" "})
        vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        theirs = MBartTokenizer([*vocabulary, *((c, -3.0) for c in letters)], src_lang="ru_RU", tgt_lang="en_XX")
        theirs.save_pretrained(folder)
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32}
        config = MBartConfig(vocab_size=len(theirs), decoder_ffn_dim=32, **heads, **small)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["t5", "mbart"])
def test_other_encoder_decoders_are_continued(kind: str, tiny_run: Run, tmp_path: Path) -> None:
    folder = encoder_decoder(tmp_path / kind, kind)
    values = ["model.max_length=48", f"model.preset={folder}", "method.name=fedavg", "rounds=1"]
    result = tiny_run(tmp_path / "run", *values)
    assert result["bleu"] >= 0
    model, tokenizer = load_saved(tmp_path / "run")
    if kind == "mbart":
        english = model.config.decoder_start_token_id
        (ids,) = tokenizer.encode(["example"], 48, target=True)
        (source,) = tokenizer.encode(["example"], 48)
        assert ids[-1] == english != source[-1]


def test_a_folder_with_a_sentencepiece_file_alone_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder_decoder(tmp_path, "t5")
    whole = HubTokenizer.of_folder(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}', "utf-8")
    (folder / "spiece.model").write_bytes(Tokenizer.train(SENTENCES, 100).model)
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)  # as where protobuf is too old
    with pytest.raises(ConfigError, match=r"spiece\.model and no tokenizer\.json, and the protobuf") as caught:
        HubTokenizer.of_folder(folder)
    assert "save_pretrained" in caught.value.hint
    whole.save(folder)
    assert HubTokenizer.of_folder(folder).encode(SENTENCES, 48) == whole.encode(SENTENCES, 48)


@pytest.mark.parametrize(("kind", "most"), [("t5", 512), ("mbart", 48)])
def test_limits_of_a_folders_generation_config_end_no_run_and_cut_no_translation(
    kind: str, most: int, tiny_run: Run, tmp_path: Path
) -> None:
    """Tokens it forces or forbids stay; so do the ids of the model's own config."""
    folder = encoder_decoder(tmp_path / kind, kind)
    path = folder / "generation_config.json"
    kept = {"forced_eos_token_id": 2, "bad_words_ids": [[5]]}
    other = {"num_beams": 3, "length_penalty": 5.0, "do_sample": True, "return_dict_in_generate": True}
    limits = {"max_new_tokens": 200, "max_length": 20, "min_length": 15, "num_return_sequences": 2}
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **kept, **limits, **other}), "utf-8")
    values = [f"model.preset={folder}", "model.max_length=48", "method.name=fedavg", "rounds=1"]
    tiny_run(tmp_path / "run", *values)
    assert len((tmp_path / "run" / "translations" / "common.txt").read_text("utf-8").split("\n")) == 4 + 1
    model, _ = load_saved(tmp_path / "run")
    found = model.generation_config.to_diff_dict()
    assert (found["max_length"], found.pop("num_beams")) == (most, 1)
    assert {name: found[name] for name in kept} == kept
    assert not (found.keys() & (limits.keys() | other.keys())) - {"max_length"}
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        assert found[name] == getattr(model.config, name) is not None


def test_a_folder_translates_one_line_a_sentence_whatever_its_generation_config_says(tmp_path: Path) -> None:
    folder = encoder_decoder(tmp_path, "mbart")
    model, tokenizer = load_saved(folder)
    before = translate(model, tokenizer, SENTENCES[:3], beams=2)
    model.generation_config.update(max_new_tokens=200, num_beams=2, num_return_sequences=2)
    assert translate(model, tokenizer, SENTENCES[:3], beams=2) == before


def test_the_card_of_a_masked_model_fills_in_its_own_mask(
    tiny_run: Run, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = bert_folder / name
        path.write_text(path.read_text("utf-8").replace("<mask>", "[MASK]"), "utf-8")
    tiny_run(tmp_path / "run", "model.task=masked-lm", f"model.preset={bert_folder}", "method.name=local", "rounds=1")
    export(tmp_path / "run", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text("utf-8")
    code = card.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(tmp_path / "exported"))
    exec(code, {})
    assert "A text with one [MASK] hidden." in code
    assert capsys.readouterr().out.count("'sequence'") == 5


def test_a_new_head_is_the_same_for_the_same_seed(gpt2: Path, mini_model: None, tmp_path: Path) -> None:
    tokenizer = HubTokenizer.train_bpe(SENTENCES, 300)
    masked = make_model(ModelConfig(task="masked-lm", architecture="bert", max_length=48), tokenizer, (), 1)
    masked.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    config = ModelConfig(preset=str(tmp_path), task="classification", max_length=48)
    one, again, other = (get_weights(make_model(config, tokenizer, ("a", "b", "c"), seed)) for seed in (1, 1, 2))
    assert one["classifier.weight"].shape == (3, 32)
    with pytest.raises(ConfigError, match=r"lack 'bert\.pooler\.dense\.bias'"):
        load_any(tmp_path, "classification")  # a model that was trained has its head
    assert np.array_equal(one["classifier.weight"], again["classifier.weight"])
    assert not np.array_equal(one["classifier.weight"], other["classifier.weight"])
    for name, values in one.items():
        if name.startswith("bert.encoder"):
            assert np.array_equal(values, get_weights(masked)[name])

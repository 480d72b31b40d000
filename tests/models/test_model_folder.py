# SPDX-License-Identifier: Apache-2.0
"""Runs that continue from a model folder with its own vocabulary, special ids and weights."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load, save
from transformers import MarianConfig, MarianMTModel
from transformers import MarianTokenizer as TheirTokenizer

from trustformer.data.batches import collate, to_examples
from trustformer.data.corpus import Pair, read_pairs
from trustformer.data.marian import MarianTokenizer, load_tokenizer, stored_tokenizer
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError
from trustformer.evaluation.translation import negative_log_likelihood, translate
from trustformer.experiment.saved import load_saved
from trustformer.models.folder import continue_model
from trustformer.models.seq2seq import ModelConfig, get_weights, logits_of

CONFIG = ModelConfig(preset="folder", max_length=24, dropout=0.0)


def spm(sentences: list[str], **special: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=110,
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **special,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def pairs(corpus_files: Path) -> list[Pair]:
    return read_pairs(corpus_files / "train.tsv")[0]


@pytest.fixture(scope="module")
def folder(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published Marian models are: end 0, unknown 1, pad last, pieces of both languages in no order."""
    folder = tmp_path_factory.mktemp("marian")
    sides = {"source": [pair.source for pair in pairs], "target": [pair.target for pair in pairs]}
    pieces: set[str] = set()
    for side, sentences in sides.items():
        data = spm(sentences)
        (folder / f"{side}.spm").write_bytes(data)
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        pieces |= {processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    names = sorted(pieces - {"<s>", "</s>", "<unk>"})
    random.Random(7).shuffle(names)
    names = ["</s>", "<unk>", *names, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    pad = len(names) - 1
    sizes = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 1), ("ffn_dim", 48))}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    special = {"pad_token_id": pad, "eos_token_id": 0, "bos_token_id": None, "forced_eos_token_id": 0}
    config = MarianConfig(
        vocab_size=len(names), d_model=24, max_position_embeddings=40, decoder_start_token_id=pad, **sizes, **heads,
        **special,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        MarianMTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


@pytest.mark.filterwarnings("ignore")  # transformers recommends sacremoses, which it does not use here
def test_ids_are_those_of_transformers(folder: Path, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    theirs = TheirTokenizer.from_pretrained(folder)
    sources, targets = [pair.source for pair in pairs[:30]], [pair.target for pair in pairs[:30]]
    assert isinstance(tokenizer, MarianTokenizer)
    assert tokenizer.encode(sources, 999) == theirs(sources)["input_ids"]
    assert tokenizer.encode(targets, 999, target=True) == theirs(text_target=targets)["input_ids"]
    assert tokenizer.decode(tokenizer.encode(targets, 999, target=True)) == targets
    assert tokenizer.pad_id == theirs.pad_token_id == tokenizer.vocab_size - 1


def test_unknown_characters_and_long_sentences(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["☃☃☃ снег"], 999)
    assert 1 in ids
    assert ids[-1] == 0
    (short,) = tokenizer.encode(["снег " * 50], 8)
    assert len(short) == 8
    assert short[-1] == 0


def test_a_stored_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer.model)
    again = stored_tokenizer(path)
    assert again.digest == tokenizer.digest
    assert again.encode(["да нет"], 99) == tokenizer.encode(["да нет"], 99)
    path.write_bytes(tokenizer.model[:-3])
    with pytest.raises(ConfigError):
        stored_tokenizer(path)


def test_padding_changes_no_score(folder: Path, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    """Pieces with id 0 and 1 occur in sentences of this vocabulary; only the model's own pad id is no token."""
    model = continue_model(folder, CONFIG, tokenizer.vocab_size).eval()
    examples = to_examples(pairs[:9], tokenizer, 24)
    batch = collate(examples, range(9), tokenizer.pad_id)
    assert batch.target_tokens == sum(len(example.target) for example in examples)
    with torch.no_grad():
        together = logits_of(model, batch)
        alone = logits_of(model, collate(examples, [4], tokenizer.pad_id))
    length = len(examples[4].target)
    assert torch.allclose(together[4, :length], alone[0, :length], atol=1e-5)
    each = [negative_log_likelihood(model, [example]) * len(example.target) for example in examples]
    assert negative_log_likelihood(model, examples) == pytest.approx(sum(each) / batch.target_tokens, rel=1e-5)
    sentences = [pair.source for pair in pairs[:5]]
    assert translate(model, tokenizer, sentences) == [translate(model, tokenizer, [one])[0] for one in sentences]


def test_a_run_continues_from_the_folder(folder: Path, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "run"
    values = [f"model.preset={folder}", "rounds=1", "method.closing_exchanges=0", "train.learning_rate=1e-9"]
    result = tiny_run(out, *values)
    start = get_weights(MarianMTModel.from_pretrained(folder))
    model, tokenizer = load_saved(out, "0")
    assert tokenizer.digest == load_tokenizer(folder).digest
    after = get_weights(model)
    assert result["parameters"] == sum(values.size for values in after.values())
    for name, values_after in after.items():  # with next to no learning, what is left is the start
        assert np.allclose(values_after, start[name], atol=1e-4), name
    again = tiny_run(tmp_path / "again", *values)
    assert again["weights_digest"] == result["weights_digest"]


def test_limits_of_the_folders_generation_config_are_not_the_runs(
    copy: Path, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = copy / "generation_config.json"
    limits = {"max_new_tokens": 200, "max_length": 20, "num_return_sequences": 2, "num_beams": 6}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | limits), "utf-8")
    tiny_run(tmp_path / "run", f"model.preset={copy}", "method.name=fedavg", "rounds=1")
    model, _ = load_saved(tmp_path / "run")
    pad = model.config.pad_token_id
    assert model.generation_config.to_diff_dict() | {"transformers_version": "any"} == {
        **{"max_length": 40, "num_beams": 1, "bad_words_ids": [[pad]], "forced_eos_token_id": 0},
        **{"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad, "transformers_version": "any"},
    }


def test_a_folder_of_ours_continues_with_the_same_tokenizer(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first = tmp_path / "first"
    tiny_run(first, "method.name=fedavg", "rounds=1")
    assert type(load_tokenizer(first / "model")) is Tokenizer
    result = tiny_run(tmp_path / "second", "method.name=fedavg", "rounds=1", f"model.preset={first / 'model'}")
    stored = (tmp_path / "second" / "tokenizer.model").read_bytes()
    assert stored == (first / "tokenizer.model").read_bytes()
    assert result["nll"] < json.loads((first / "result.json").read_text("utf-8"))["nll"]


def test_a_folder_with_another_name_of_the_pad_piece_keeps_it(copy: Path, pairs: list[Pair], tmp_path: Path) -> None:
    data = spm([pair.source for pair in pairs], pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="[PAD]")
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    ids = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    (copy / "vocab.json").write_text(json.dumps(ids), "utf-8")
    for name in ("source.spm", "target.spm"):
        (copy / name).write_bytes(data)
    changed(copy, pad_token_id=0, eos_token_id=1)
    load_tokenizer(copy).save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))["pad_token"] == "[PAD]"


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"model_type": "bart"}, "model_type"),
        ({"share_encoder_decoder_embeddings": False}, "vocabulary a language"),
        ({"vocab_size": 20, "decoder_vocab_size": 20}, "vocab_size"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id"),
        ({"max_position_embeddings": 10}, "max_length"),
        ({"d_model": 32}, r"do not fit its config\.json: 'model\.[a-z_.0-9]+' has the shape \([0-9, ]+\), not"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(copy: Path, tokenizer: Tokenizer, values: Any, part: str) -> None:
    changed(copy, **values)
    with pytest.raises(ConfigError, match=part):
        continue_model(copy, CONFIG, tokenizer.vocab_size)


@pytest.mark.parametrize("name", ["config.json", "source.spm", "target.spm", "vocab.json"])
def test_a_missing_or_damaged_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b'{"a": [')
    with pytest.raises(ConfigError, match=name):
        load_tokenizer(copy)
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=name) as caught:
        load_tokenizer(copy)
    assert "model.safetensors" in caught.value.hint


@pytest.mark.parametrize("read", [lambda folder: continue_model(folder, CONFIG, 9), load_saved])
def test_weights_that_hold_code_or_are_cut_or_lack_a_tensor_are_refused(
    copy: Path, read: Callable[[Path], Any]
) -> None:
    """Both by a run that continues and by `translate`."""
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match="cannot be read"):
        read(copy)
    tensors = load(whole)
    del tensors["model.encoder.layers.0.fc1.weight"]
    weights.write_bytes(save(tensors, {"format": "pt"}))
    with pytest.raises(ConfigError, match=r"lack 'model\.encoder\.layers\.0\.fc1\.weight'"):
        read(copy)
    weights.unlink()
    torch.save(load(whole), copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(copy)


@pytest.mark.parametrize(
    ("values", "part"), [({"pad_token_id": 9999}, "pad"), ({"eos_token_id": 1}, "end"), ({"pad_token_id": None}, "pad")]
)
def test_special_ids_that_are_no_pieces_are_refused(copy: Path, values: Any, part: str) -> None:
    changed(copy, **values)
    with pytest.raises(ConfigError, match=part):
        load_tokenizer(copy)


def test_another_vocabulary_is_another_experiment(
    copy: Path, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    values = [f"model.preset={copy}", "method.name=fedavg", "rounds=1"]
    one = tiny_run(tmp_path / "one", *values)
    vocabulary = json.loads((copy / "vocab.json").read_text("utf-8"))
    first, second = list(vocabulary)[5:7]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (copy / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    other = tiny_run(tmp_path / "other", *values)
    assert one["signature"].partition("cfg:")[2] != other["signature"].partition("cfg:")[2]


def test_a_stopped_run_goes_on_and_a_changed_folder_is_refused(
    copy: Path, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    values = [f"model.preset={copy}", "rounds=2", "method.name=fedavg"]
    whole = tiny_run(tmp_path / "whole", *values)
    out = tmp_path / "stopped"
    tiny_run(out, *values)
    for name in ("result.json", "model"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = tiny_run(out, *values, resume=True)
    assert again["weights_digest"] == whole["weights_digest"]
    (out / "result.json").unlink()
    with torch.no_grad():
        model = MarianMTModel.from_pretrained(copy)
        model.model.shared.weight.add_(0.01)
        model.save_pretrained(copy)
    with pytest.raises(ConfigError, match="not those this run began with"):
        tiny_run(out, *values, resume=True)

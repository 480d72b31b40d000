# SPDX-License-Identifier: Apache-2.0
"""Models: sizes, tied weights, frozen positions, and folders that transformers reads by itself."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from trustformer.codec.weights import Weights
from trustformer.data.batches import collate, to_examples
from trustformer.data.corpus import Pair
from trustformer.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from trustformer.data.toy import toy_corpus
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.evaluation.bootstrap import SentenceScores
from trustformer.evaluation.translation import count_cut, negative_log_likelihood, score, translate
from trustformer.models.folder import continue_model
from trustformer.models.seq2seq import (
    ModelConfig,
    build_model,
    get_weights,
    load_model,
    logits_of,
    save_model,
    set_weights,
)
from trustformer.training import LocalTrainer, TrainConfig
from trustformer.training.local import OptimizerState, rate


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return toy_corpus(5, train=48, valid=1, test=1, public=0)[0].train


@pytest.fixture(scope="module")
def tokenizer(pairs: tuple[Pair, ...]) -> Tokenizer:
    return Tokenizer.train([side for pair in pairs for side in (pair.source, pair.target)], 200)


@pytest.fixture
def model(mini_model: None, tokenizer: Tokenizer) -> Any:
    return build_model(ModelConfig(max_length=24), tokenizer.vocab_size, seed=3)


def count(weights: Weights) -> int:
    return sum(values.size for values in weights.values())


def test_the_tied_embedding_occurs_once_and_positions_are_not_trained(model: Any, tokenizer: Tokenizer) -> None:
    weights = get_weights(model)
    assert [name for name, values in weights.items() if values.shape[0] == tokenizer.vocab_size] == [
        "model.shared.weight"
    ]
    assert not [name for name in weights if "position" in name or "lm_head" in name]
    shared = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is shared
    assert model.model.encoder.embed_tokens.weight is shared
    assert model.model.decoder.embed_tokens.weight is shared


def test_a_model_is_the_same_for_the_same_seed_and_leaves_torch_s_generator_alone(model: Any) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    weights = get_weights(build_model(ModelConfig(max_length=24), model.config.vocab_size, seed=3))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, values in get_weights(model).items():
        assert np.array_equal(values, weights[name])
    other = get_weights(build_model(ModelConfig(max_length=24), model.config.vocab_size, seed=4))
    assert not np.array_equal(other["model.shared.weight"], weights["model.shared.weight"])


def test_weights_go_out_as_copies_and_back(model: Any) -> None:
    weights = get_weights(model)
    assert all(values.dtype == np.float32 for values in weights.values())
    changed = {name: values + 1 for name, values in weights.items()}
    set_weights(model, changed)
    for name, values in get_weights(model).items():
        assert np.array_equal(values, changed[name])
        assert not np.array_equal(values, weights[name])


def test_another_model_s_weights_are_refused(model: Any) -> None:
    weights = get_weights(model)
    name = next(iter(weights))
    for wrong in ({k: v for k, v in weights.items() if k != name}, {**weights, "more": np.zeros(1, np.float32)}):
        with pytest.raises(ConfigError, match="another model"):
            set_weights(model, wrong)
    with pytest.raises(ConfigError, match="another model"):
        set_weights(model, {**weights, name: np.zeros((1, weights[name].shape[1]), np.float32)})


def trained(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...], rounds: int) -> tuple[Weights, OptimizerState]:
    trainer = LocalTrainer(model, TrainConfig(batch_tokens=128, warmup_steps=10))
    weights, state = get_weights(build_model(ModelConfig(max_length=24), tokenizer.vocab_size, 3)), OptimizerState()
    examples = to_examples(pairs, tokenizer, 24)
    for number in range(rounds):
        result = trainer.train(weights, state, examples, seed=(1, 0, number))
        weights, state = result.weights, result.optimizer
    return weights, state


def test_training_is_bit_reproducible(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    torch.manual_seed(1)
    once, state = trained(model, tokenizer, pairs, 2)
    torch.manual_seed(2)
    again, state_again = trained(model, tokenizer, pairs, 2)
    for name, values in once.items():
        assert np.array_equal(values, again[name])
        assert np.array_equal(state.second[name], state_again.second[name])


def test_rounds_go_on_from_stored_adam_state_and_step_count(
    model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    from trustformer.federation.store import ClientState, ClientStore

    weights, state = trained(model, tokenizer, pairs, 1)
    ClientStore(tmp_path).save(ClientState(weights, {}, state))
    stored = ClientStore(tmp_path).load()
    assert stored is not None
    assert stored.optimizer.steps == state.steps > 0
    trainer = LocalTrainer(model, TrainConfig(batch_tokens=128, warmup_steps=10))
    second = trainer.train(stored.weights, stored.optimizer, to_examples(pairs, tokenizer, 24), seed=(1, 0, 1))
    whole, whole_state = trained(model, tokenizer, pairs, 2)
    assert second.optimizer.steps == whole_state.steps == 2 * state.steps
    for name, values in whole.items():
        assert np.array_equal(values, second.weights[name])


def test_one_long_adam_is_what_two_rounds_make(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    """The same batches in one plain torch loop give the same weights: no state is lost between rounds."""
    weights, _ = trained(model, tokenizer, pairs, 2)
    config = TrainConfig(batch_tokens=128, warmup_steps=10)
    plain = build_model(ModelConfig(max_length=24), tokenizer.vocab_size, 3)
    plain.train()
    parameters = [p for p in plain.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=1, betas=(0.9, 0.98), eps=1e-9, weight_decay=config.weight_decay)
    examples, step = to_examples(pairs, tokenizer, 24), 0
    for number in range(2):
        torch.manual_seed(int(np.random.SeedSequence((1, 0, number)).generate_state(1, np.uint64)[0] >> 1))
        for indexes in LocalTrainer(plain, config)._batches(examples, (1, 0, number)):
            step += 1
            batch = collate(examples, indexes)
            adam.param_groups[0]["lr"] = config.learning_rate * min(step / 10, (10 / step) ** 0.5)
            loss = torch.nn.CrossEntropyLoss(ignore_index=PAD_ID, label_smoothing=0.1)(
                logits_of(plain, batch).flatten(0, 1), batch.target.flatten()
            )
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            adam.step()
    for name, values in get_weights(plain).items():
        np.testing.assert_allclose(values, weights[name], rtol=0, atol=1e-6)


def test_the_rate_rises_and_falls() -> None:
    assert [round(rate(step, 100), 3) for step in (1, 50, 100, 400)] == [0.01, 0.5, 1.0, 0.5]


def test_a_cooldown_changes_the_last_rounds_alone(
    mini_model: None, tokenizer: Tokenizer, pairs: tuple[Pair, ...]
) -> None:
    """Of four rounds, half of them the cooldown: bit for bit the first two, then steps of 3/4 and 1/4 of the length."""
    plain = build_model(ModelConfig(max_length=24, dropout=0.0), tokenizer.vocab_size, 3)
    examples, start = to_examples(pairs, tokenizer, 24), get_weights(plain)
    ends: list[list[Weights]] = []
    for cooldown in (0.0, 0.5):
        config = TrainConfig(batch_tokens=128, warmup_steps=10, learning_rate=1e-4, cooldown=cooldown)
        trainer, state, weights = LocalTrainer(plain, config, rounds=4), OptimizerState(), start
        ends.append([])
        for number in range(1, 5):
            result = trainer.train(weights, state, examples, seed=(1, 0, number))
            weights, state = result.weights, result.optimizer
            ends[-1].append(weights)
    with pytest.raises(TrustformerError, match="round 5 of 4"):
        trainer.train(weights, state, examples, seed=(1, 0, 5))
    for name in start:
        assert all(np.array_equal(ends[0][i][name], ends[1][i][name]) for i in (0, 1))
    moved = [
        [math.sqrt(sum(float(np.sum((run[i][name] - run[i - 1][name]) ** 2)) for name in start)) for i in (2, 3)]
        for run in ends
    ]
    assert moved[1][0] / moved[0][0] == pytest.approx(0.75, abs=0.05)
    assert moved[1][1] / moved[0][1] == pytest.approx(0.25, abs=0.05)


def test_parts_of_a_pass_are_the_pass(mini_model: None, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    """Where nothing is drawn in a step, four rounds of a quarter are one round of a whole pass, bit for bit."""
    plain = build_model(ModelConfig(max_length=24, dropout=0.0), tokenizer.vocab_size, 3)
    examples, start = to_examples(pairs, tokenizer, 24), get_weights(plain)
    ends = []
    for passes, rounds in ((1, (1, 2)), (0.25, range(1, 9))):
        trainer = LocalTrainer(plain, TrainConfig(batch_tokens=128, warmup_steps=10, local_epochs=passes))
        weights, state = start, OptimizerState()
        for number in rounds:
            result = trainer.train(weights, state, examples, seed=(1, 0, number))
            weights, state = result.weights, result.optimizer
            assert result.tokens > 0
        ends.append((weights, state.steps))
    assert ends[0][1] == ends[1][1] > 8
    for name, values in ends[0][0].items():
        assert np.array_equal(values, ends[1][0][name])


def test_parts_smaller_than_a_batch_are_refused(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    trainer = LocalTrainer(model, TrainConfig(batch_tokens=4096, local_epochs=0.1))
    with pytest.raises(TrustformerError, match="too few for 10 parts"):
        trainer.train(get_weights(model), OptimizerState(), to_examples(pairs, tokenizer, 24), seed=(1, 0, 1))


def test_arguments_of_training_are_not_changed(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    weights = get_weights(model)
    before = {name: values.copy() for name, values in weights.items()}
    LocalTrainer(model, TrainConfig()).train(weights, OptimizerState(), to_examples(pairs, tokenizer, 24), seed=(1,))
    for name, values in weights.items():
        assert np.array_equal(values, before[name])


def test_training_lowers_the_loss_on_what_it_saw(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    examples = to_examples(pairs, tokenizer, 24)
    before = negative_log_likelihood(model, examples)
    set_weights(model, trained(model, tokenizer, pairs, 6)[0])
    assert negative_log_likelihood(model, examples) < before - 0.3


def test_likelihood_is_the_plain_mean_over_target_tokens(
    model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]
) -> None:
    set_weights(model, trained(model, tokenizer, pairs, 2)[0])
    examples = to_examples(pairs[:12], tokenizer, 24)
    total, tokens = 0.0, 0
    model.eval()
    for example in examples:
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([example.source]),
                decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id, *example.target[:-1]]]),
            ).logits[0]
        chosen = logits.double().log_softmax(-1)[torch.arange(len(example.target)), torch.tensor(example.target)]
        total, tokens = total - float(chosen.sum()), tokens + len(example.target)
        assert example.target[-1] == EOS_ID
    assert negative_log_likelihood(model, examples) == pytest.approx(total / tokens, rel=1e-5)


def test_sentences_are_cut_beyond_the_positions_of_the_model(model: Any, tokenizer: Tokenizer) -> None:
    """24 of them, the end token's included."""
    words = ["кот"] * 24
    lengths = [len(tokenizer.encode([" ".join(words[:n])], 999)[0]) for n in range(1, 25)]
    assert lengths[-1] > 24 >= lengths[0]
    for number, length in enumerate(lengths, start=1):
        assert count_cut(model, tokenizer, [" ".join(words[:number])]) == (length > 24)


def test_translations_do_not_depend_on_the_batch(model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...]) -> None:
    set_weights(model, trained(model, tokenizer, pairs, 4)[0])
    sentences = [pair.source for pair in pairs[:9]]
    together = translate(model, tokenizer, sentences)
    assert len(together) == 9
    assert translate(model, tokenizer, sentences, batch_sentences=9) == together
    assert translate(model, tokenizer, list(reversed(sentences)), batch_sentences=9) == together[::-1]
    assert len(translate(model, tokenizer, sentences, beams=3)) == 9


def test_scores_are_sacrebleu_s() -> None:
    good = score(["the cat sat on the mat", "a dog"], ["the cat sat on the mat", "a dog"])
    assert good.bleu == pytest.approx(100)
    assert good.chrf == pytest.approx(100)
    assert "nrefs:1|case:mixed" in good.bleu_signature
    assert score(["x y z"], ["the cat sat on the mat"]).bleu < 5
    for language in ("", "en", "de-AT", "th"):
        assert score(["a dog ran"], ["a dog"], language) == score(["a dog ran"], ["a dog"])


@pytest.mark.parametrize("language", ["zh", "zh-CN", "ZH_tw", "zho_Hans", "cmn"])
def test_chinese_is_scored_by_its_characters(language: str) -> None:
    references = ["我今天早上在公园里看见一只黑色的狗。", "她想去北京学习中文。"]
    translations = ["我今天早上在公园里看见了一只黑狗。", "她想到北京学习中文。"]
    scores = score(translations, references, language)
    assert scores.bleu == pytest.approx(69.85, abs=0.01)
    assert "|tok:zh|" in scores.bleu_signature
    sums = SentenceScores("bleu", translations, references, language=language)
    assert sums.score() == pytest.approx(scores.bleu, abs=1e-9)
    assert scores.chrf == score(translations, references).chrf


def test_a_padded_embedding_never_speaks(model: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    size = tokenizer.vocab_size
    assert tokenizer.decode([[7, size, 8, 10**9], [-100]]) == tokenizer.decode([[7, 8], []])
    padded = build_model(ModelConfig(max_length=24), size + 8, seed=3)
    save_model(padded, tmp_path)
    continued = continue_model(tmp_path, ModelConfig(preset=str(tmp_path), max_length=24), size)
    sentences = ["кот спит", "врач"]
    expected = translate(continued, tokenizer, sentences)
    assert any(expected)
    continued.final_logits_bias[:, size:] = 100
    assert translate(continued, tokenizer, sentences) == expected


ELSEWHERE = """
import sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for line in sys.stdin.read().splitlines():
    ids = tokenizer(line, return_tensors="pt", truncation=True, max_length=24)
    output = model.generate(**ids, num_beams=1, do_sample=False, max_length=24)
    print(tokenizer.decode(output[0], skip_special_tokens=True))
assert not [name for name in sys.modules if name.startswith("trustformer")]
"""


def test_transformers_reads_the_folder_without_us_and_translates_alike(
    model: Any, tokenizer: Tokenizer, pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    set_weights(model, trained(model, tokenizer, pairs, 12)[0])
    save_model(model, tmp_path)
    tokenizer.save(tmp_path)
    sentences = [pair.source for pair in pairs[:4] if len(pair.source) < 60]
    ours = [translate(load_model(tmp_path), tokenizer, [sentence])[0] for sentence in sentences]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        input="\n".join(sentences),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == [line.strip() for line in ours]
    assert any(line.strip() for line in ours)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 1000, b"\xff" * 1000])
def test_a_tokenizer_that_is_no_sentencepiece_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.model"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="tokenizer"):
        Tokenizer.load(path)


def test_a_cut_tokenizer_and_a_missing_one_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "t.model"
    path.write_bytes(tokenizer.model[: len(tokenizer.model) // 2])
    with pytest.raises(ConfigError, match="tokenizer"):
        Tokenizer.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokenizer.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "piece", "has"),
    [
        ("pad_piece", "[PAD]", r"\[PAD\], </s>, <unk>"),
        ("eos_piece", "<eos>", "<pad>, <eos>, <unk>"),
        ("unk_piece", "[UNK]", r"<pad>, </s>, \[UNK\]"),
    ],
)
def test_a_tokenizer_with_other_names_of_special_pieces_is_refused(
    tmp_path: Path, pairs: tuple[Pair, ...], name: str, piece: str, has: str
) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([pair.source for pair in pairs]),
        model_prefix=str(tmp_path / "t"),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, name: piece},
    )
    with pytest.raises(ConfigError, match=f"{has}, they must be <pad>, </s>, <unk>"):
        Tokenizer.load(tmp_path / "t.model")


def test_a_tokenizer_cannot_be_trained_on_next_to_nothing() -> None:
    with pytest.raises(DataError, match="every line is empty") as caught:
        Tokenizer.train(["", " "], 500)
    assert "tokenizer.train_on" in caught.value.hint


def test_a_vocabulary_too_small_for_its_script_says_how_large_it_must_be() -> None:
    letters = [chr(0x4E00 + number) * 2 for number in range(300)]
    with pytest.raises(DataError) as caught:
        Tokenizer.train(letters, 100)
    assert "trainer_interface" not in caught.value.message
    least = int(caught.value.hint.removeprefix("--set tokenizer.vocab_size=").removesuffix(" or more"))
    assert Tokenizer.train(letters, least).vocab_size == least
    with pytest.raises(DataError):
        Tokenizer.train(letters, least - 1)


def test_a_loaded_model_trains_the_same_tensors_as_a_built_one(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    loaded, weights = load_model(tmp_path), get_weights(model)
    for name, values in get_weights(loaded).items():
        assert np.array_equal(values, weights.pop(name))
    assert not weights


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load_model(tmp_path)

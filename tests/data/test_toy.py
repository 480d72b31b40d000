# SPDX-License-Identifier: Apache-2.0
"""The toy corpus: correct forms, disjoint splits, domains that differ, the same pairs for the same seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import trustformer
from trustformer.data.corpus import Corpus, Pair
from trustformer.data.toy import english, russian, toy_corpus
from trustformer.data.toy.phrases import DETERMINERS, NUMERALS, PRONOUNS, phrase
from trustformer.data.toy.russian import ACC, DAT, GEN, INS, NOM, PREP, noun
from trustformer.data.toy.words import DOMAINS, Noun, ambiguous_lemmas, lexicon, make_adjective
from trustformer.errors import ConfigError

CASE = {"nom": NOM, "gen": GEN, "dat": DAT, "acc": ACC, "ins": INS, "prep": PREP}


@pytest.fixture(scope="module")
def made() -> tuple[Corpus, tuple[Pair, ...]]:
    return toy_corpus(0)


def find(domain: str, lemma: str) -> Noun:
    return next(noun for noun in lexicon(domain).nouns if noun.lemma == lemma)


def words(text: str) -> set[str]:
    return {word.strip(".,?").lower() for word in text.split()}


@pytest.mark.parametrize(
    ("domain", "lemma", "number", "case", "form"),
    [
        ("hospital", "врач", "sg", "ins", "врачом"),
        ("hospital", "врач", "pl", "gen", "врачей"),
        ("hospital", "врач", "pl", "nom", "врачи"),
        ("hospital", "врач", "sg", "acc", "врача"),
        ("hospital", "медсестра", "pl", "gen", "медсестёр"),
        ("hospital", "медсестра", "pl", "dat", "медсёстрам"),
        ("hospital", "больница", "sg", "ins", "больницей"),
        ("hospital", "операция", "sg", "prep", "операции"),
        ("hospital", "операция", "pl", "gen", "операций"),
        ("hospital", "таблетка", "pl", "gen", "таблеток"),
        ("hospital", "почка", "pl", "gen", "почек"),
        ("hospital", "палец", "pl", "gen", "пальцев"),
        ("hospital", "палец", "sg", "ins", "пальцем"),
        ("hospital", "костыль", "sg", "ins", "костылём"),
        ("hospital", "мазь", "sg", "ins", "мазью"),
        ("hospital", "мазь", "pl", "gen", "мазей"),
        ("hospital", "санаторий", "sg", "prep", "санатории"),
        ("hospital", "рука", "sg", "gen", "руки"),
        ("bank", "счёт", "pl", "nom", "счета"),
        ("bank", "счёт", "pl", "prep", "счетах"),
        ("bank", "платёж", "sg", "gen", "платежа"),
        ("bank", "платёж", "pl", "gen", "платежей"),
        ("bank", "хранилище", "sg", "prep", "хранилище"),
        ("bank", "хранилище", "pl", "gen", "хранилищ"),
        ("bank", "рынок", "sg", "prep", "рынке"),
        ("bank", "предприниматель", "pl", "acc", "предпринимателей"),
        ("court", "судья", "sg", "ins", "судьёй"),
        ("court", "судья", "pl", "gen", "судей"),
        ("court", "судья", "sg", "acc", "судью"),
        ("court", "убийца", "sg", "ins", "убийцей"),
        ("court", "истец", "sg", "dat", "истцу"),
        ("court", "истец", "pl", "gen", "истцов"),
        ("court", "потерпевший", "sg", "gen", "потерпевшего"),
        ("court", "подсудимый", "pl", "ins", "подсудимыми"),
        ("court", "статья", "pl", "gen", "статей"),
        ("court", "тюрьма", "pl", "gen", "тюрем"),
        ("court", "заседание", "sg", "prep", "заседании"),
        ("court", "нож", "sg", "ins", "ножом"),
        ("shared", "письмо", "pl", "gen", "писем"),
        ("shared", "учитель", "pl", "nom", "учителя"),
        ("shared", "идея", "pl", "gen", "идей"),
        ("shared", "книга", "sg", "gen", "книги"),
        ("shared", "мужчина", "sg", "acc", "мужчину"),
        ("shared", "товарищ", "sg", "ins", "товарищем"),
    ],
)
def test_nouns(domain: str, lemma: str, number: str, case: str, form: str) -> None:
    if lemma == "товарищ":  # not in the lexicon: the unstressed ending after a hissing consonant
        singular, plural = noun(lemma, "m")
    else:
        singular, plural = find(domain, lemma).singular, find(domain, lemma).plural
    assert (singular if number == "sg" else plural)[CASE[case]] == form


@pytest.mark.parametrize(
    ("lemma", "gender", "case", "form"),
    [
        ("новый", "m", "ins", "новым"),
        ("строгий", "p", "nom", "строгие"),
        ("строгий", "m", "ins", "строгим"),
        ("хороший", "m", "gen", "хорошего"),
        ("хороший", "f", "dat", "хорошей"),
        ("хороший", "n", "nom", "хорошее"),
        ("большой", "m", "gen", "большого"),
        ("большой", "p", "gen", "больших"),
        ("синий", "f", "acc", "синюю"),
        ("синий", "n", "dat", "синему"),
        ("дорогой", "p", "ins", "дорогими"),
    ],
)
def test_adjectives(lemma: str, gender: str, case: str, form: str) -> None:
    adjective = make_adjective(lemma, "pt", "x")
    assert adjective.inanimate[gender][CASE[case]] == form
    expected = adjective.inanimate[gender][GEN] if gender in "mp" else adjective.inanimate[gender][ACC]
    assert adjective.animate[gender][ACC] == expected


@pytest.mark.parametrize(
    ("spec", "personal", "feminine"),
    [
        ("читать", "читаю читаешь читает читаем читаете читают", "читала"),
        ("готовить", "готовлю готовишь готовит готовим готовите готовят", "готовила"),
        ("лечить", "лечу лечишь лечит лечим лечите лечат", "лечила"),
        ("арестовать", "арестую арестуешь арестует арестуем арестуете арестуют", "арестовала"),
        ("навестить", "навещу навестишь навестит навестим навестите навестят", "навестила"),
        ("выдавать", "выдаю выдаёшь выдаёт выдаём выдаёте выдают", "выдавала"),
        ("выдать:дать", "выдам выдашь выдаст выдадим выдадите выдадут", "выдала"),
        ("найти:найду:найдёшь:нашёл:нашла", "найду найдёшь найдёт найдём найдёте найдут", "нашла"),
        (
            "вернуться:вернусь:вернёшься",
            "вернусь вернёшься вернётся вернёмся вернётесь вернутся",
            "вернулась",
        ),
    ],
)
def test_verbs(spec: str, personal: str, feminine: str) -> None:
    _, forms, past = russian.verb(spec)
    assert " ".join(forms) == personal
    assert past["f"] == feminine


@pytest.mark.parametrize(
    ("number", "lemma", "attribute", "case", "text"),
    [
        (0, "врач", "новый", NOM, "два новых врача"),
        (0, "врач", "новый", ACC, "двух новых врачей"),
        (0, "карта", "новый", ACC, "две новые карты"),
        (1, "таблетка", "белый", NOM, "три белые таблетки"),
        (2, "счёт", "большой", NOM, "четыре больших счёта"),
        (3, "врач", "новый", ACC, "пять новых врачей"),
        (3, "врач", "новый", DAT, "пяти новым врачам"),
        (7, "операция", "срочный", INS, "несколькими срочными операциями"),
    ],
)
def test_numerals_govern_case(number: int, lemma: str, attribute: str, case: int, text: str) -> None:
    said = phrase(
        find("hospital", lemma),
        (make_adjective(attribute, "pdtr", "x"),),
        plural=True,
        definite=True,
        numeral=NUMERALS[number],
    )
    assert said.russian(case) == text


def test_pronouns_and_prepositions_take_their_joined_forms() -> None:
    me, he, she = PRONOUNS[0], PRONOUNS[3], PRONOUNS[4]
    assert (me.russian(INS, "с"), me.russian(PREP, "о")) == ("со мной", "обо мне")
    assert (he.russian(GEN, "у"), he.russian(PREP, "о"), he.russian(DAT)) == ("у него", "о нём", "ему")
    assert (she.russian(GEN, "для"), she.russian(PREP, "на")) == ("для неё", "на ней")
    student = phrase(find("shared", "студент"), (), plural=False, definite=True)
    assert (student.russian(INS, "с"), student.english) == ("со студентом", "the student")
    this = phrase(find("shared", "ошибка"), (), plural=True, definite=True, determiner=DETERMINERS[0])
    assert (this.russian(PREP, "о"), this.english) == ("об этих ошибках", "these mistakes")


def test_english_forms() -> None:
    assert [english.plural(x) for x in ("woman", "policy", "box", "diagnosis", "arson attack")] == [
        "women",
        "policies",
        "boxes",
        "diagnoses",
        "arson attacks",
    ]
    assert [english.article(x) for x in ("honest man", "useful idea", "ATM", "old key")] == [
        "an honest man",
        "a useful idea",
        "an ATM",
        "an old key",
    ]
    assert english.possessive("women") == "women's"
    assert english.possessive("doctors") == "doctors'"
    wait, rob = english.verb("wait_for"), english.verb("rob")
    assert (wait.third, wait.ing) == ("waits for", "waiting for")
    assert (rob.past, rob.ing, english.verb("carry").past) == ("robbed", "robbing", "carried")


def test_sizes_domains_and_lengths(made: tuple[Corpus, tuple[Pair, ...]]) -> None:
    corpus, public = made
    splits = (corpus.train, corpus.valid, corpus.test, public)
    assert [len(split) for split in splits] == [20_000, 500, 500, 2_000]
    assert corpus.domains() == DOMAINS
    assert len(DOMAINS) == 3
    assert (corpus.synthetic, corpus.name, corpus.warnings) == (True, "toy (synthetic)", ())
    for split in splits:
        counts = Counter(pair.domain for pair in split)
        assert max(counts.values()) - min(counts.values()) <= 1
    for pair in (pair for split in splits for pair in split):
        assert 4 <= len(pair.source.split()) <= 18
        assert 4 <= len(pair.target.split()) <= 18


def test_all_pairs_are_distinct_and_no_side_is_in_two_splits(made: tuple[Corpus, tuple[Pair, ...]]) -> None:
    corpus, public = made
    splits = (corpus.train, corpus.valid, corpus.test, public)
    sources = [pair.source for split in splits for pair in split]
    assert len(set(sources)) == len(sources) > 20_000
    targets = [{pair.target for pair in split} for split in splits]
    assert sum(len(side) for side in targets) == len(set().union(*targets))


def test_held_out_words_occur_in_train(made: tuple[Corpus, tuple[Pair, ...]]) -> None:
    corpus, public = made
    known = set().union(*(words(pair.source) | words(pair.target) for pair in corpus.train))
    for pair in (*corpus.valid, *corpus.test, *public):
        assert words(pair.source) | words(pair.target) <= known


def test_a_word_means_another_thing_in_another_domain(made: tuple[Corpus, tuple[Pair, ...]]) -> None:
    assert {"счёт", "дело", "карта", "операция", "снять", "принять"} <= ambiguous_lemmas()
    forms = {form for number in (find("bank", "счёт").singular, find("bank", "счёт").plural) for form in number}
    meanings = {"bank": "account", "court": "invoice", "hospital": "bill"}
    seen = Counter(
        (pair.domain, meaning)
        for pair in made[0].train
        if words(pair.source) & forms
        for meaning in meanings.values()
        if {meaning, meaning + "s"} & words(pair.target)
    )
    assert {key for key, count in seen.items() if count > 10} == set(meanings.items())


def test_domains_have_words_of_their_own(made: tuple[Corpus, tuple[Pair, ...]]) -> None:
    vocabulary = {
        domain: Counter(w for pair in made[0].train if pair.domain == domain for w in words(pair.target))
        for domain in DOMAINS
    }
    for domain, counts in vocabulary.items():
        elsewhere = set().union(*(set(other) for name, other in vocabulary.items() if name != domain))
        foreign = sum(count for word, count in counts.items() if word not in elsewhere)
        assert 0.15 < foreign / counts.total() < 0.6


def test_the_seed_decides_and_the_hash_seed_does_not() -> None:
    def digest(seed: int) -> str:
        corpus, public = toy_corpus(seed, train=600, valid=20, test=20, public=30)
        return corpus.digest + hashlib.sha256(repr(public).encode()).hexdigest()

    code = (
        "import hashlib; from trustformer.data.toy import toy_corpus;"
        "c, p = toy_corpus(3, train=600, valid=20, test=20, public=30);"
        "print(c.digest + hashlib.sha256(repr(p).encode()).hexdigest())"
    )
    source = str(Path(trustformer.__file__).parents[1])
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == digest(3)
    assert digest(4) != digest(3)


def test_small_corpora_and_sizes_out_of_range() -> None:
    corpus, public = toy_corpus(1, train=3, valid=1, test=1, public=0)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test), public) == (3, 1, 1, ())
    with pytest.raises(ConfigError, match="0 train pairs"):
        toy_corpus(train=0)
    with pytest.raises(ConfigError, match="-1 public pairs"):
        toy_corpus(public=-1)

# SPDX-License-Identifier: Apache-2.0
"""Noun phrases and clauses of the toy corpus, said in both languages at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trustformer.data.toy import english
from trustformer.data.toy.russian import ACC, GEN, NOM, Forms, adjective
from trustformer.data.toy.words import Adjective, Noun, animate_forms


def _forms(text: str) -> Forms:
    nom, gen, dat, acc, ins, prep = text.split()
    return nom, gen, dat, acc, ins, prep


def _agreeing(*rows: str) -> dict[str, Forms]:
    """Forms by gender from four rows: masculine, feminine, neuter, plural."""
    return {gender: _forms(row) for gender, row in zip("mfnp", rows, strict=True)}


def _suffixed(lemma: str, suffix: str) -> dict[str, Forms]:
    return {g: _forms(" ".join(form + suffix for form in f)) for g, f in adjective(lemma).items()}


def _constant(word: str) -> dict[str, Forms]:
    return {gender: (word,) * 6 for gender in "mfnp"}


def _like_my(stem: str) -> dict[str, Forms]:
    return _agreeing(
        *(
            " ".join(stem + ending for ending in row.split())
            for row in ("й его ему й им ём", "я ей ей ю ей ей", "ё его ему ё им ём", "и их им и ими их")
        )
    )


def _like_our(stem: str) -> dict[str, Forms]:
    return _agreeing(
        f"{stem} {stem}его {stem}ему {stem} {stem}им {stem}ем",
        f"{stem}а {stem}ей {stem}ей {stem}у {stem}ей {stem}ей",
        f"{stem}е {stem}его {stem}ему {stem}е {stem}им {stem}ем",
        f"{stem}и {stem}их {stem}им {stem}и {stem}ими {stem}их",
    )


WHICH = adjective("который")
OWN = _like_my("сво")


@dataclass(frozen=True, slots=True)
class Determiner:
    """A word before the noun that replaces the English article; empty English bars that number."""

    inanimate: dict[str, Forms]
    singular: str
    plural: str

    def forms(self, gender: str, is_animate: bool) -> Forms:
        """The six forms that agree with a noun."""
        return (animate_forms(self.inanimate) if is_animate else self.inanimate)[gender]


DETERMINERS = (
    Determiner(
        _agreeing(
            "этот этого этому этот этим этом",
            "эта этой этой эту этой этой",
            "это этого этому это этим этом",
            "эти этих этим эти этими этих",
        ),
        "this",
        "these",
    ),
    Determiner(
        _agreeing(
            "тот того тому тот тем том",
            "та той той ту той той",
            "то того тому то тем том",
            "те тех тем те теми тех",
        ),
        "that",
        "those",
    ),
    Determiner(_like_my("мо"), "my", "my"),
    Determiner(_like_my("тво"), "your", "your"),
    Determiner(_like_our("наш"), "our", "our"),
    Determiner(_like_our("ваш"), "your", "your"),
    Determiner(_constant("его"), "his", "his"),
    Determiner(_constant("её"), "her", "her"),
    Determiner(_constant("их"), "their", "their"),
    Determiner(adjective("каждый"), "every", ""),
    Determiner(_suffixed("какой", "-то"), "some", "some"),
    Determiner(adjective("другой"), "another", "other"),
    Determiner(_agreeing(*(("все всех всем все всеми всех",) * 4)), "", "all the"),
)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A cardinal; `few` ones (2 to 4) take the genitive singular, the others the genitive plural."""

    forms: Forms
    feminine: str
    few: bool
    english: str


NUMERALS = (
    Numeral(_forms("два двух двум два двумя двух"), "две", True, "two"),
    Numeral(_forms("три трёх трём три тремя трёх"), "три", True, "three"),
    Numeral(_forms("четыре четырёх четырём четыре четырьмя четырёх"), "четыре", True, "four"),
    Numeral(_forms("пять пяти пяти пять пятью пяти"), "пять", False, "five"),
    Numeral(_forms("шесть шести шести шесть шестью шести"), "шесть", False, "six"),
    Numeral(_forms("семь семи семи семь семью семи"), "семь", False, "seven"),
    Numeral(_forms("десять десяти десяти десять десятью десяти"), "десять", False, "ten"),
    Numeral(_forms("несколько нескольких нескольким несколько несколькими нескольких"), "несколько", False, "several"),
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase: Russian words of six forms each and a fixed tail, English as subject and as object.

    `gender` is m, f, n or p and `person` 0 to 5 (I, you, he, we, you, they): what a verb agrees with.
    """

    words: tuple[Forms, ...]
    english: str
    english_object: str
    gender: str
    person: int
    owner: str
    animate: bool
    simple: bool
    pronoun: bool = False
    tail: str = ""

    def russian(self, case: int, preposition: str = "") -> str:
        """The phrase in a case, after a preposition in the form that it takes here."""
        text = " ".join(word[case] for word in self.words) + self.tail
        if not preposition:
            return text
        if self.pronoun and text[:2] in ("ег", "её", "ей", "ем", "им", "их"):
            text = "н" + text
        return f"{_before(preposition, text)} {text}"

    def with_tail(self, russian: str, english_tail: str) -> Phrase:
        """The phrase followed by an attribute, such as a relative clause."""
        return replace(
            self,
            tail=self.tail + russian,
            english=f"{self.english} {english_tail}",
            english_object=f"{self.english_object} {english_tail}",
            simple=False,
        )


def _before(preposition: str, text: str) -> str:
    """с врачом, со студентом, во вкладе, об ошибке, ко мне."""
    first, second = text[0], text[1]
    consonant = second not in "аеёиоуыэюяй"
    if text.startswith("мн") and preposition in ("с", "к"):
        return preposition + "о"
    if preposition == "о":
        return "обо" if text.startswith("мн") else "об" if first.lower() in "аиоуэ" else "о"
    if (preposition == "с" and first in "сзшж" and consonant) or (preposition == "в" and first in "вф" and consonant):
        return preposition + "о"
    return preposition


def _pronoun(forms: str, subject: str, other: str, gender: str, person: int, owner: str) -> Phrase:
    return Phrase((_forms(forms),), subject, other, gender, person, owner, True, False, pronoun=True)


PRONOUNS = (
    _pronoun("я меня мне меня мной мне", "I", "me", "m", 0, "my"),
    _pronoun("я меня мне меня мной мне", "I", "me", "f", 0, "my"),
    _pronoun("ты тебя тебе тебя тобой тебе", "you", "you", "m", 1, "your"),
    _pronoun("он его ему его им нём", "he", "him", "m", 2, "his"),
    _pronoun("она её ей её ей ней", "she", "her", "f", 2, "her"),
    _pronoun("мы нас нам нас нами нас", "we", "us", "p", 3, "our"),
    _pronoun("вы вас вам вас вами вас", "you", "you", "p", 4, "your"),
    _pronoun("они их им их ими них", "they", "them", "p", 5, "their"),
)
WHO = _pronoun("кто кого кому кого кем ком", "who", "whom", "m", 2, "his")


def phrase(
    noun: Noun,
    adjectives: tuple[Adjective, ...],
    *,
    plural: bool,
    definite: bool,
    determiner: Determiner | None = None,
    numeral: Numeral | None = None,
    possessor: Phrase | None = None,
) -> Phrase:
    """A noun with what stands around it; at most one of determiner, numeral and possessor.

    Without any of them English has the where `definite`, else a, an or a bare plural.
    """
    gender = "p" if plural else noun.gender
    words = [(a.animate if noun.animate else a.inanimate)[gender] for a in adjectives]
    words.append(noun.plural if plural else noun.singular)
    name = " ".join([*(a.english for a in adjectives), noun.english_plural if plural else noun.english])
    tail = ""
    if noun.proper:
        full = name
    elif determiner is not None:
        words.insert(0, determiner.forms(gender, noun.animate))
        full = f"{determiner.plural if plural else determiner.singular} {name}"
    elif numeral is not None:
        words = _counted(noun, adjectives, numeral)
        full = f"{numeral.english} {name}"
    elif possessor is not None:
        tail = " " + possessor.russian(GEN)
        full = f"{english.possessive(possessor.english)} {name}"
    elif definite:
        full = f"the {name}"
    else:
        full = name if plural else english.article(name)
    owner = "their" if plural else {"m": "his", "f": "her"}.get(noun.gender, "its") if noun.animate else "its"
    simple = not (noun.proper or possessor is not None)
    return Phrase(tuple(words), full, full, gender, 5 if plural else 2, owner, noun.animate, simple, tail=tail)


def _counted(noun: Noun, adjectives: tuple[Adjective, ...], numeral: Numeral) -> list[Forms]:
    """Numeral, adjectives and noun; nominative and inanimate accusative are governed by the numeral."""
    feminine = noun.gender == "f"
    number = (numeral.feminine if feminine else numeral.forms[NOM], *numeral.forms[1:])
    counted = noun.singular[GEN] if numeral.few and "A" not in noun.kinds else noun.plural[GEN]
    governed = NOM if numeral.few and feminine else GEN
    words: list[tuple[str, Forms, str]] = [
        (a.inanimate["p"][governed], a.inanimate["p"], a.inanimate["p"][GEN]) for a in adjectives
    ]
    words.append((counted, noun.plural, noun.plural[GEN]))
    by_genitive = noun.animate and numeral.few
    accusative = number[GEN] if by_genitive else number[NOM]
    result: list[Forms] = [(*number[:ACC], accusative, *number[4:])]  # type: ignore[list-item]
    for nominative, rest, genitive in words:
        result.append((nominative, rest[1], rest[2], genitive if by_genitive else nominative, rest[4], rest[5]))
    return result

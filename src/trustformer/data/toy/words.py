# SPDX-License-Identifier: Apache-2.0
"""The lexicon of the toy corpus as objects, one lexicon a domain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from trustformer.data.toy import english, russian
from trustformer.data.toy import lexicon as text
from trustformer.data.toy.russian import Forms

DOMAINS = ("bank", "court", "hospital")


@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun with its forms of both numbers (animate accusatives in place) and its English."""

    lemma: str
    gender: str
    kinds: str
    proper: bool
    singular: Forms
    plural: Forms
    english: str
    english_plural: str

    @property
    def animate(self) -> bool:
        """Whether it is a person."""
        return "p" in self.kinds


@dataclass(frozen=True, slots=True, eq=False)
class Adjective:
    """An adjective with its forms by gender (m, f, n, plural p) for inanimate and animate nouns."""

    lemma: str
    kinds: str
    inanimate: dict[str, Forms]
    animate: dict[str, Forms]
    english: str


@dataclass(frozen=True, slots=True, eq=False)
class Aspect:
    """One verb of an aspect pair: infinitive, six personal forms, past by gender, English."""

    infinitive: str
    personal: tuple[str, ...]
    past: dict[str, str]
    english: english.EnglishVerb


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """An aspect pair, what it governs and the kinds of object that make sense with it."""

    imperfective: Aspect
    perfective: Aspect
    preposition: str
    case: int
    recipient: bool
    destination: bool
    kinds: str

    @property
    def transitive(self) -> bool:
        """Whether it takes a bare accusative, hence has a passive."""
        return self.case == russian.ACC and not self.preposition and not self.destination


@dataclass(frozen=True)
class Lexicon:
    """The words of one domain or of the shared core; `keys` are the domain's own unambiguous lemmas."""

    nouns: tuple[Noun, ...]
    adjectives: tuple[Adjective, ...]
    verbs: tuple[Verb, ...]


def _entries(block: str) -> list[list[str]]:
    return [entry.split() for entry in block.split(";")]


def make_adjective(lemma: str, kinds: str, gloss: str) -> Adjective:
    """An adjective whose animate masculine and plural accusatives equal the genitives."""
    forms = russian.adjective(lemma)
    return Adjective(lemma, kinds, forms, animate_forms(forms), gloss)


def animate_forms(forms: dict[str, Forms]) -> dict[str, Forms]:
    """Forms by gender that agree with animate nouns."""
    return {gender: russian.animate(f) if gender in "mp" else f for gender, f in forms.items()}


def make_noun(lemma: str, flags: str, gloss: str, *changes: str) -> Noun:
    """A noun from an entry of the lexicon."""
    gender, kinds = flags[0], flags[1:]
    if "A" in kinds:
        forms = russian.adjective(lemma)
        singular, plural = forms[gender], forms["p"]
    else:
        given = dict(change.split("=") for change in changes)
        singular, plural = russian.noun(lemma, gender, stressed="*" in kinds, changes=given)
    if "p" in kinds:
        plural = russian.animate(plural)
        if gender == "m" and lemma[-1] not in "ая":
            singular = russian.animate(singular)
    gloss = gloss.replace("_", " ")
    return Noun(lemma, gender, kinds, "P" in kinds, singular, plural, gloss, english.plural(gloss))


def _make_verb(imperfective: str, perfective: str, gloss: str, government: str, kinds: str) -> Verb:
    first, _, second = gloss.partition("|")
    aspects = [
        Aspect(*russian.verb(spec), english.verb(meaning))
        for spec, meaning in ((imperfective, first), (perfective, second or first))
    ]
    case = int(government[-1]) - 1 if government[-1].isdigit() else russian.ACC
    preposition = government.rstrip("123456RL")
    return Verb(aspects[0], aspects[1], preposition, case, government == "R", government == "L", kinds)


@cache
def lexicon(name: str) -> Lexicon:
    """The words of a domain, or of `shared`."""
    prefix = name.upper()
    return Lexicon(
        nouns=tuple(make_noun(*entry) for entry in _entries(getattr(text, f"{prefix}_NOUNS"))),
        adjectives=tuple(make_adjective(*entry) for entry in _entries(getattr(text, f"{prefix}_ADJECTIVES"))),
        verbs=tuple(_make_verb(*entry) for entry in _entries(getattr(text, f"{prefix}_VERBS"))),
    )


@cache
def ambiguous_lemmas() -> frozenset[str]:
    """Lemmas (verbs: perfectives) to which at least two domains give different English."""
    meanings: dict[str, set[str]] = {}
    for name in DOMAINS:
        for noun in lexicon(name).nouns:
            meanings.setdefault(noun.lemma, set()).add(noun.english)
        for adjective in lexicon(name).adjectives:
            meanings.setdefault(adjective.lemma, set()).add(adjective.english)
        for verb in lexicon(name).verbs:
            meanings.setdefault(verb.perfective.infinitive, set()).add(verb.perfective.english.base)
    return frozenset(lemma for lemma, glosses in meanings.items() if len(glosses) > 1)

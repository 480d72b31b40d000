# SPDX-License-Identifier: Apache-2.0
"""Random phrases and clauses of the toy corpus.

English articles follow from what Russian shows: the before the verb, in prepositional phrases and for
recipients; a, an or a bare plural for a bare object after the verb.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import accumulate

from trustformer.data.toy.clauses import FUTURE, MODES, PAST, PROGRESSIVE, Clause, Mode, predicate, russian_verb, words
from trustformer.data.toy.phrases import DETERMINERS, NUMERALS, OWN, PRONOUNS, Determiner, Phrase
from trustformer.data.toy.phrases import phrase as noun_phrase
from trustformer.data.toy.russian import ACC, DAT, GEN, INS, PREP
from trustformer.data.toy.words import Adjective, Noun, Verb, ambiguous_lemmas, lexicon

_ADJUNCTS = (  # preposition, case, kinds, English
    ("с", INS, "p", "with"),
    ("для", GEN, "p", "for"),
    ("после", GEN, "e", "after"),
    ("до", GEN, "e", "before"),
    ("во время", GEN, "e", "during"),
    ("из-за", GEN, "bie", "because of"),
    ("без", GEN, "dt", "without"),
)

_CUMULATIVE = list(accumulate(mode.weight for mode in MODES))


@cache
def _nouns(domain: str, kinds: str) -> tuple[Noun, ...]:
    return tuple(noun for noun in lexicon(domain).nouns if set(kinds) & set(noun.kinds))


@cache
def _adjectives(domain: str, kinds: str) -> tuple[Adjective, ...]:
    return tuple(a for a in lexicon(domain).adjectives if set(kinds) & set(a.kinds))


class Speaker:
    """Says sentences of one domain; `keys` counts its own unambiguous words in the sentence being said."""

    def __init__(self, domain: str, rng: random.Random) -> None:
        self.domain = domain
        self.rng = rng
        self.keys = 0

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def _note(self, lemma: str) -> None:
        self.keys += lemma not in ambiguous_lemmas()

    def noun(self, kinds: str, own: float = 0.8) -> Noun:
        """A noun of one of the kinds, from the domain with probability `own` where both have one."""
        mine, shared = _nouns(self.domain, kinds), _nouns("shared", kinds)
        noun = self.rng.choice(mine if mine and (not shared or self.chance(own)) else shared)
        if noun in mine:
            self._note(noun.lemma)
        return noun

    def verb(self, *, destination: bool = True) -> Verb:
        """A verb, from the domain six times in ten."""
        if self.chance(0.6):
            verb = self.rng.choice(lexicon(self.domain).verbs)
            self._note(verb.perfective.infinitive)
            return verb
        verbs = lexicon("shared").verbs
        return self.rng.choice(verbs if destination else [v for v in verbs if not v.destination])

    def attributes(self, noun: Noun, probability: float) -> tuple[Adjective, ...]:
        """One adjective that goes with the noun, or none."""
        if noun.proper or not self.chance(probability):
            return ()
        kinds = "".join(kind for kind in noun.kinds if kind.islower())
        mine = _adjectives(self.domain, kinds)
        choice = self.rng.choice(mine if mine and self.chance(0.45) else _adjectives("shared", kinds) or mine)
        if choice in mine:
            self._note(choice.lemma)
        return (choice,)

    def phrase(self, kinds: str, *, definite: bool, owner: str = "", plain: bool = False) -> Phrase:
        """A noun phrase; `owner` is the subject's possessive in English and allows свой."""
        noun = self.noun(kinds)
        adjectives = self.attributes(noun, 0.2 if plain else 0.35)
        plural = not noun.proper and self.chance(0.27)
        draw = 1.0 if plain or noun.proper else self.rng.random()
        if draw < 0.16:
            determiner = self.rng.choice(DETERMINERS)
            if not (determiner.plural if plural else determiner.singular):
                plural = not plural
            return noun_phrase(noun, adjectives, plural=plural, definite=True, determiner=determiner)
        if draw < 0.22 and owner:
            own = Determiner(OWN, owner, owner)
            return noun_phrase(noun, adjectives, plural=plural, definite=True, determiner=own)
        if draw < 0.29:
            numeral = self.rng.choice(NUMERALS)
            return noun_phrase(noun, adjectives, plural=True, definite=True, numeral=numeral)
        if draw < 0.38 and not noun.animate and noun.kinds[0] not in "vn":
            possessor = self.phrase("p", definite=True, plain=True)
            return noun_phrase(noun, adjectives, plural=plural, definite=True, possessor=possessor)
        return noun_phrase(noun, adjectives, plural=plural, definite=definite)

    def subject(self, *, pronouns: float = 0.2) -> Phrase:
        """Somebody who acts."""
        if self.chance(pronouns):
            return self.rng.choice(PRONOUNS)
        return self.phrase("p", definite=True)

    def objects(self, verb: Verb, subject: Phrase) -> tuple[str, str]:
        """What follows the verb, in both languages."""
        if verb.destination:
            place = self.place(ACC)
            return place[0], place[1].partition(" ")[2]
        if verb.kinds[0] == "p" and self.chance(0.15):
            other = self.rng.choice([p for p in PRONOUNS if p.person != subject.person and p.owner != subject.owner])
            return other.russian(verb.case, verb.preposition), other.english_object
        definite = bool(verb.preposition) or verb.case != ACC
        thing = self.phrase(verb.kinds, definite=definite, owner=subject.owner)
        russian, english = thing.russian(verb.case, verb.preposition), thing.english_object
        if not verb.recipient:
            return russian, english
        person = self.phrase("p", definite=True, plain=True)
        return words(person.russian(DAT), russian), f"{english} to {person.english_object}"

    def place(self, case: int = PREP) -> tuple[str, str]:
        """Where, or with the accusative where to."""
        noun = self.noun("vn")
        preposition, english = ("на", "at") if "n" in noun.kinds else ("в", "in")
        where = noun_phrase(noun, self.attributes(noun, 0.25), plural=False, definite=True)
        return where.russian(case, preposition), f"{english} {where.english}"

    def adjunct(self) -> tuple[str, str]:
        """A place or another prepositional phrase."""
        if self.chance(0.5):
            return self.place()
        preposition, case, kinds, english = self.rng.choice(_ADJUNCTS)
        thing = self.phrase(kinds, definite=True, plain=True)
        return thing.russian(case, preposition), f"{english} {thing.english_object}"

    def clause(
        self, subject: Phrase | None = None, mode: Mode | None = None, *, short: bool = False, tense: str = ""
    ) -> Clause:
        """An event with a subject; `short` leaves out time and place, `tense` replaces the English tense."""
        subject = subject or self.subject()
        mode = mode or self.rng.choices(MODES, cum_weights=_CUMULATIVE)[0]
        verb = self.verb()
        aspect = verb.perfective if mode.perfective else verb.imperfective
        return Clause(
            subject,
            verb,
            russian_verb(aspect, mode, subject),
            predicate(aspect, tense or mode.english, subject),
            self.objects(verb, subject),
            self.adjunct() if not short and not verb.destination and self.chance(0.4) else ("", ""),
            ("", "") if short and mode in (PAST, FUTURE, PROGRESSIVE) else self.rng.choice(mode.around),
            self.rng.choice(mode.middle),
            mode.negative or (mode.negatable and self.chance(0.12)),
        )

    def said(self, clause: Clause) -> tuple[str, str]:
        """The clause in one of its Russian orders, and in English."""
        return clause.russian_sentence(self.rng.randrange(4)), clause.english_sentence()

    def about(self, noun: Noun) -> Phrase:
        """A noun to say something of: definite, often with a determiner."""
        plural = self.chance(0.3)
        determiner = self.rng.choice(DETERMINERS) if self.chance(0.5) else None
        if determiner and not (determiner.plural if plural else determiner.singular):
            plural = not plural
        return noun_phrase(noun, (), plural=plural, definite=True, determiner=determiner)
